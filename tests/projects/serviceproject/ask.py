"""A script that sends requests to a view of a service.

Prints the messages of the system checks, the responses, and the loaded modules.
"""

import json
import sys

import django

from tests.support import subproject

if __name__ == "__main__":
    for package in ("oauth2_provider", "oauthlib"):
        # None makes every import of the package fail, as if the package were not installed.
        sys.modules[package] = None  # type: ignore[assignment]
    django.setup()
    from django.core.checks import run_checks
    from rest_framework.request import Request
    from rest_framework.response import Response
    from rest_framework.test import APIRequestFactory
    from rest_framework.views import APIView

    from tests.projects.serviceproject.settings import QUESTION

    class CurrentUser(APIView):
        def get(self, request: Request) -> Response:
            real_user = request.auth.masquerading_user_uuid
            return Response({"user": str(request.user), "type": type(request.user).__name__, "behind": real_user})

    def answer(authorization: str) -> tuple[int, object, str | None]:
        response = CurrentUser.as_view()(APIRequestFactory().get("/", HTTP_AUTHORIZATION=authorization)).render()
        return response.status_code, json.loads(response.content), response.get("WWW-Authenticate")

    subproject.print_result(
        {
            "checks": [(message.id, message.hint) for message in run_checks()],
            "answers": [answer(authorization) for authorization in QUESTION["authorizations"]],
            "loaded": [
                name
                for name in ("oauth2_provider", "oauthlib", "instaccess.models", "instaccess.users")
                if sys.modules.get(name) is not None
            ],
        }
    )
