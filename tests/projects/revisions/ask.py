"""A script that requests tokens with django-reversion's middleware, and with each fix of the check instaccess.W021.

The script prints the results.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from tests.support import subproject

MIDDLEWARE = (
    "reversion.middleware.RevisionMiddleware",
    "tests.projects.revisions.middleware.WithoutTransaction",
    "tests.projects.revisions.middleware.ExcludesIssuing",
)


class Messages(logging.Handler):
    """A log handler that stores the messages of warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def main() -> None:
    subproject.set_up()

    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.checks import run_checks
    from django.test import Client, override_settings
    from django.utils import timezone
    from oauth2_provider.models import get_access_token_model, get_application_model

    from instaccess.conf import SCOPE
    from instaccess.models import IssuedToken

    application = get_application_model().objects.create(
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris="https://tool.example/callback",
    )
    get_access_token_model().objects.create(
        user=get_user_model().objects.create_user("ada"),
        application=application,
        token="good",
        scope=SCOPE,
        expires=timezone.now() + timedelta(hours=1),
    )
    messages = Messages()
    logging.getLogger("instaccess").addHandler(messages)
    answers = {}
    for path in MIDDLEWARE:
        before, rows = len(messages.texts), IssuedToken.objects.count()
        with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE[:-1], path]):
            response = Client(SERVER_NAME="localhost").post(
                "/api/v1/inst_access_tokens", headers={"Authorization": "Bearer good"}
            )
            warned = [message.msg for message in run_checks() if message.id == "instaccess.W021"]
        answers[path] = {
            "status": response.status_code,
            "body": response.content.decode(),
            "rows": IssuedToken.objects.count() - rows,
            "log": messages.texts[before:],
            "warned": warned,
        }
    subproject.print_result(answers)


if __name__ == "__main__":
    main()
