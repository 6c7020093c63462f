"""A script that runs migrations with swapped models, issues tokens and prints the results as JSON."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from io import StringIO
from pathlib import Path

from tests.support import subproject


def main() -> None:
    migrations = Path(os.environ["SUBPROJECT_DATABASE"]).parent / "swapped_migrations"
    migrations.mkdir()
    (migrations / "__init__.py").touch()

    import django

    django.setup()
    from django.core.management import call_command

    call_command("makemigrations", "swapped", verbosity=0)
    subproject.set_up()

    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext
    from django.utils import timezone
    from oauth2_provider.models import (
        get_access_token_model,
        get_application_model,
        get_grant_model,
        get_id_token_model,
        get_refresh_token_model,
    )

    from instaccess.conf import SCOPE
    from instaccess.models import IssuedToken, UserIdentity
    from tests.support.answers import claims_of

    call_command("makemigrations", "instaccess", check=True, verbosity=0)
    checks = StringIO()
    call_command("check", stdout=checks, stderr=checks)

    person = get_user_model().objects.create_user("ada")
    tools = [
        get_application_model().objects.create(
            name=name,
            client_type="confidential",
            authorization_grant_type="authorization-code",
            redirect_uris="https://tool.example/callback",
            disabled=name == "disabled",
        )
        for name in ("enabled", "disabled")
    ]

    def ask(access_token):
        return Client(headers={"host": "localhost"}).post(
            "/api/v1/inst_access_tokens", headers={"Authorization": f"Bearer {access_token.token}"}
        )

    def post(tool, **columns):
        values = {"token": os.urandom(16).hex(), "scope": SCOPE, "expires": timezone.now() + timedelta(hours=1)}
        access_token = get_access_token_model().objects.create(user=person, application=tool, **(values | columns))
        with CaptureQueriesContext(connection) as queries:
            response = ask(access_token)
        return response, access_token, len(queries)

    post(tools[0])
    issued, access_token, queries = post(tools[0])
    refused, _, _ = post(tools[1])
    expired, _, _ = post(tools[1], expires=timezone.now())
    permanently, old, _ = post(tools[0], expires=timezone.now())
    get_refresh_token_model().objects.create(user=person, application=tools[0], token="refresh", access_token=old)
    refreshable = ask(old)
    swapped = {"user": person, "application": tools[0], "expires": timezone.now() + timedelta(hours=1)}
    get_grant_model().objects.create(code="code", redirect_uri="https://tool.example/callback", **swapped)
    get_id_token_model().objects.create(**swapped)
    output = StringIO()
    call_command(
        *("instaccess_tokens", "revoke", "--user", "ada", "--reason", "x", "--oauth2-tokens", "--json"), stdout=output
    )
    revoked = json.loads(output.getvalue())
    claims = claims_of(issued.json()["token"])
    row = IssuedToken.objects.get(jti=claims["jti"])
    subproject.print_result(
        {
            "models": [type(person)._meta.label, type(tools[0])._meta.label, type(access_token)._meta.label],
            "checks": checks.getvalue(),
            "status": issued.status_code,
            "queries": queries,
            "sub_is_the_field": claims["sub"] == str(person.uuid) == row.user_uuid,
            "identities": UserIdentity.objects.count(),
            "audit": [row.user == person, row.application == tools[0], row.client_id == tools[0].client_id],
            "access_token_pk": row.access_token_pk == str(access_token.pk),
            "expired": [permanently.json()["errors"][0]["message"], refreshable.json()["errors"][0]["message"]],
            "refresh_token_model": get_refresh_token_model()._meta.label,
            "revoked": [revoked["revoked"], revoked["revoked_oauth2_tokens"]],
            "after_revocation": [
                ask(access_token).status_code,
                get_refresh_token_model().objects.filter(revoked=None).count(),
                get_grant_model().objects.count(),
                get_id_token_model().objects.count(),
            ],
            "disabled": [refused.status_code, refused.content.decode(), expired.content.decode()],
        }
    )


if __name__ == "__main__":
    main()
