"""The protected endpoint `GET /api/v1/users/self`, which also exists in Canvas, and the first page of the project."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_safe
from oauth2_provider.contrib.rest_framework import OAuth2Authentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from instaccess import users, web
from instaccess.exceptions import Reason
from instaccess.service import InstAccessAuthentication


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Return the first page of the project. The link "View site" in the admin leads to this page."""
    return render(request, "testproject/home.html")


class AccessTokenAuthentication(OAuth2Authentication):  # type: ignore[misc]
    """Authentication with OAuth2 access tokens of active users. All other tokens are refused with Canvas's body."""

    def authenticate(self, request: Request) -> Any:
        authenticated = super().authenticate(request)
        if authenticated is not None and authenticated[0] is not None and authenticated[0].is_active:
            return authenticated
        if request.META.get("HTTP_AUTHORIZATION", "").lower().startswith("bearer "):
            raise web.InvalidAccessToken(code=Reason.UNKNOWN_TOKEN)
        return None


class UsersSelf(APIView):
    """A view that returns the user of a signed InstAccess token or of an OAuth2 access token."""

    authentication_classes = [InstAccessAuthentication, AccessTokenAuthentication]
    permission_classes = [IsAuthenticated]

    def handle_exception(self, exc: Exception) -> HttpResponseBase:  # type: ignore[override]
        """Return the same error response as Canvas, because clients compare response bodies literally."""
        if isinstance(exc, NotAuthenticated):
            exc = web.Unauthenticated(code=Reason.NO_CREDENTIALS)
        if isinstance(exc, web.Refusal):
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
        """Return the number of bytes in the body of the request, for tests of proxies."""
        return Response({"received": sum(len(chunk) for chunk in iter(lambda: request.read(64 * 1024), b""))})
