"""One protected endpoint, as Canvas has it: `GET /api/v1/users/self`."""

from __future__ import annotations

from typing import Any

from oauth2_provider.contrib.rest_framework import OAuth2Authentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from instaccess import identity
from instaccess.consumer import InstAccessAuthentication


class UsersSelf(APIView):
    """Who the caller is, for an InstAccess token that came through the gateway or for an OAuth2 access token."""

    authentication_classes = [InstAccessAuthentication, OAuth2Authentication]
    permission_classes = [IsAuthenticated]

    def get(self, request: Request) -> Response:
        user: Any = request.user
        name = user.get_full_name() or user.get_username()
        return Response(
            {
                "id": user.pk,
                "name": name,
                "sortable_name": ", ".join(filter(None, (user.last_name, user.first_name))) or name,
                "short_name": name,
                "login_id": user.get_username(),
                "uuid": identity.user_uuid(user),
            }
        )

    def post(self, request: Request) -> Response:
        """For looking at what a proxy lets through: how many bytes of body arrived, however many."""
        return Response({"received": sum(len(chunk) for chunk in iter(lambda: request.read(64 * 1024), b""))})
