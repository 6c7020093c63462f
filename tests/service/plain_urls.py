"""The URLs of a Django project without Django REST framework, for the tests of the middleware and the decorator."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_protect

from instaccess.exceptions import InvalidToken
from instaccess.service import (
    RequestAuthentication,
    from_application,
    is_service_user,
    not_masquerading,
    token_required,
)


class OneRegion(RequestAuthentication):
    def get_claims(self, payload: dict[str, Any]) -> Any:
        claims = super().get_claims(payload)
        if claims.region != "eu":
            raise InvalidToken("only tokens of the region eu are accepted")
        return claims


def seen(request: Any) -> JsonResponse:
    claims = getattr(request, "instaccess", "absent")
    session = getattr(request, "session", {})
    return JsonResponse(
        {
            "user": str(request.user),
            "authenticated": request.user.is_authenticated,
            "jti": claims if isinstance(claims, str) else claims and claims.jti,
            "note": session.get("note"),
        }
    )


def sync_view(request: HttpRequest) -> JsonResponse:
    return seen(request)


async def async_view(request: Any) -> JsonResponse:
    user = await request.auser()
    return JsonResponse(
        {
            "user": str(user),
            "authenticated": user.is_authenticated,
            "jti": request.instaccess and request.instaccess.jti,
            "note": None,
        }
    )


@token_required
def sync_token(request: HttpRequest) -> JsonResponse:
    return seen(request)


@token_required
async def async_token(request: HttpRequest) -> JsonResponse:
    return seen(request)


@method_decorator(token_required, name="dispatch")
class ClassBased(View):
    def post(self, request: HttpRequest) -> JsonResponse:
        return seen(request)


urlpatterns = [
    path("sync/", sync_view),
    path("async/", async_view),
    path("protected/", csrf_protect(sync_view)),
    path("cached/", cache_page(60)(sync_view)),
    path("cached/token/", token_required(cache_page(60)(sync_view))),
    path("token/cached/", cache_page(60)(token_required(sync_view))),
    path("token/region/", token_required(authentication=OneRegion())(sync_view)),
    path("token/sync/", sync_token),
    path("token/async/", async_token),
    path("token/class/", ClassBased.as_view()),
    path("allow/human/", token_required(allow=[not_masquerading])(sync_view)),
    path("allow/service/", token_required(allow=[is_service_user])(sync_view)),
    path("allow/application/", token_required(allow=[from_application("lms", "portal")])(async_view)),
    path("allow/both/", token_required(allow=[not_masquerading, is_service_user])(sync_view)),
    path("allow/truthy/", token_required(allow=[lambda claims: claims.jti])(sync_view)),
    path("", include("instaccess.urls")),
]
