"""A script that sends each kind of request to the issuing endpoint, and prints the responses as JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.support import subproject

EXPIRES = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
"""The time at which the access token `expired` expired."""


def main() -> None:
    subproject.set_up()

    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.utils import timezone
    from oauth2_provider.models import get_access_token_model, get_application_model

    from instaccess.conf import SCOPE
    from instaccess.models import IssuedToken
    from tests.support.answers import signed_inside

    user = get_user_model().objects.create_user("ada")
    application = get_application_model().objects.create(
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris="https://tool.example/callback",
    )

    def make(name, **columns):
        values = {"user": user, "application": application, "scope": SCOPE}
        values["expires"] = timezone.now() + timedelta(hours=1)
        get_access_token_model().objects.create(token=name, **(values | columns))

    make("good")
    make("expired", expires=EXPIRES)
    make("read-only", scope="read")
    client = Client(headers={"host": "localhost", "accept": "text/html", "accept-language": "fr"})

    def ask(method="POST", token=None, suffix="", body=b"x=" + b"y" * 100):
        response = client.generic(
            method,
            "/api/v1/inst_access_tokens" + suffix,
            body,
            "application/x-www-form-urlencoded",
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
        )
        return {
            "status": response.status_code,
            "body": response.content.decode(),
            "challenge": response.get("WWW-Authenticate"),
            "type": response.get("Content-Type", ""),
            "cache": response.get("Cache-Control"),
            "allow": response.get("Allow"),
        }

    answers = {
        "success": ask(token="good"),
        "success .json": ask(token="good", suffix=".json"),
        "success ?format=html": ask(token="good", suffix="?format=html"),
        "success without a body": ask(token="good", body=b""),
        "anonymous": ask(),
        "unknown": ask(token="unknown"),
        "expired": ask(token="expired"),
        "scope": ask(token="read-only"),
        "as_user_id": ask(token="good", suffix="?as_user_id=4711"),
        "GET": ask("GET"),
        "OPTIONS": ask("OPTIONS"),
    }
    issued = answers["success"]["body"].removeprefix('{"token":"').removesuffix('"}')
    answers["decrypted"] = ask(token=signed_inside(issued))
    answers["rows"] = IssuedToken.objects.count()
    answers["users"] = get_user_model().objects.count()
    subproject.print_result(answers)


if __name__ == "__main__":
    main()
