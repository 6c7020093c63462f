"""An endpoint that accepts only requests with a signed token."""

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class WhoAmI(APIView):
    """A view that returns the user of the token. DEFAULT_PERMISSION_CLASSES refuses requests without a token."""

    def get(self, request: Request) -> Response:
        return Response({"user": request.auth.user_uuid, "account": request.auth.account_uuid})
