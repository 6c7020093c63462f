"""What a protected view of the service answers to each Authorization header, and what got loaded meanwhile."""

import json
import sys

import django

from tests.support import subproject

if __name__ == "__main__":
    for missing in ("oauth2_provider", "oauthlib"):
        sys.modules[missing] = None  # type: ignore[assignment]  # an import of it fails
    django.setup()
    from rest_framework.request import Request
    from rest_framework.response import Response
    from rest_framework.test import APIRequestFactory
    from rest_framework.views import APIView

    from tests.projects.serviceproject.settings import QUESTION

    class Who(APIView):
        def get(self, request: Request) -> Response:
            behind = request.auth.masquerading_user_uuid
            return Response({"user": str(request.user), "type": type(request.user).__name__, "behind": behind})

    def answer(authorization: str) -> tuple[int, object, str | None]:
        response = Who.as_view()(APIRequestFactory().get("/", HTTP_AUTHORIZATION=authorization)).render()
        return response.status_code, json.loads(response.content), response.get("WWW-Authenticate")

    subproject.say(
        {
            "answers": [answer(authorization) for authorization in QUESTION["authorizations"]],
            "loaded": [
                name
                for name in ("oauth2_provider", "oauthlib", "instaccess.models", "instaccess.users")
                if sys.modules.get(name) is not None
            ],
        }
    )
