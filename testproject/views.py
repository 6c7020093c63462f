"""One protected endpoint, as Canvas has it: `GET /api/v1/users/self`."""

from __future__ import annotations

from typing import Any

from django.http.response import HttpResponseBase
from oauth2_provider.contrib.rest_framework import OAuth2Authentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from instaccess import users
from instaccess.exceptions import Reason
from instaccess.service import InstAccessAuthentication
from instaccess.web import answers


class AccessTokenAuthentication(OAuth2Authentication):  # type: ignore[misc]
    """OAuth2 access tokens of active users; every other bearer that comes this far is refused in Canvas's words."""

    def authenticate(self, request: Request) -> Any:
        found = super().authenticate(request)
        if found is not None and found[0] is not None and found[0].is_active:
            return found
        if request.META.get("HTTP_AUTHORIZATION", "").lower().startswith("bearer "):
            raise answers.InvalidAccessToken(code=Reason.UNKNOWN_TOKEN)
        return None


class UsersSelf(APIView):
    """Who the caller is, for an InstAccess token that came through the gateway or for an OAuth2 access token."""

    authentication_classes = [InstAccessAuthentication, AccessTokenAuthentication]
    permission_classes = [IsAuthenticated]

    def handle_exception(self, exc: Exception) -> HttpResponseBase:  # type: ignore[override]
        """Refusals as Canvas has them: its clients compare bodies literally."""
        if isinstance(exc, NotAuthenticated):
            exc = answers.Unauthenticated(code=Reason.NO_CREDENTIALS)
        if isinstance(exc, answers.Refusal):
            return exc.to_response()
        return super().handle_exception(exc)

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
                "uuid": users.user_uuid(user),
            }
        )

    def post(self, request: Request) -> Response:
        """For looking at what a proxy lets through: how many bytes of body arrived, however many."""
        return Response({"received": sum(len(chunk) for chunk in iter(lambda: request.read(64 * 1024), b""))})
