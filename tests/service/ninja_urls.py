"""The URLs of a Django project with django-ninja, for the tests of this package's authenticator for django-ninja."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import path
from ninja import NinjaAPI
from ninja.security import HttpBearer, django_auth

from instaccess.service import is_service_user
from instaccess.service.ninja import InstAccessBearer, answer_refusals
from tests.service.plain_urls import OneRegion


class AcceptAnyBearer(HttpBearer):
    """An authenticator that accepts every bearer token."""

    def authenticate(self, request: HttpRequest, token: str) -> str:
        return "another"


def seen(request: Any) -> dict[str, Any]:
    claims = getattr(request, "instaccess", None)
    return {
        "auth": request.auth if isinstance(request.auth, str) else getattr(request.auth, "jti", "session"),
        "jti": claims and claims.jti,
        "user": str(request.user),
        "note": getattr(request, "session", {}).get("note"),
    }


def add_operations(api: NinjaAPI) -> None:
    @api.post("/sync/")
    def sync_operation(request: HttpRequest) -> Any:
        return seen(request)

    @api.post("/async/")
    async def async_operation(request: HttpRequest) -> Any:
        return seen(request)

    @api.post("/session/", auth=[InstAccessBearer(), django_auth])
    def token_or_session(request: HttpRequest) -> Any:
        return seen(request)

    @api.post("/next/", auth=[InstAccessBearer(), AcceptAnyBearer()])
    def token_or_another(request: HttpRequest) -> Any:
        return seen(request)

    @api.post("/region/", auth=InstAccessBearer(authentication=OneRegion()))
    def only_for_one_region(request: HttpRequest) -> Any:
        return seen(request)

    @api.post("/service/", auth=InstAccessBearer(allow=[is_service_user]))
    def service_users(request: HttpRequest) -> Any:
        return seen(request)


api = NinjaAPI(auth=InstAccessBearer(), urls_namespace="with the responses")
answer_refusals(api)
add_operations(api)

plain = NinjaAPI(auth=InstAccessBearer(), urls_namespace="without the responses")
add_operations(plain)

urlpatterns = [path("api/", api.urls), path("plain/", plain.urls)]
