"""The gateway's url alone: `path("", include("instaccess.urls_gateway"))`. Needs neither our tables nor OAuth2."""

from django.urls import path

from . import forward_auth

urlpatterns = [
    path("internal/gateway/verify", forward_auth.verify, name="instaccess-verify"),
]
