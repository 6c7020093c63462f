"""The gateway's url: `path("", include("instaccess.gateway.urls"))`. Needs neither our tables nor OAuth2."""

from django.urls import path

from . import views

urlpatterns = [
    path("internal/gateway/verify", views.verify, name="instaccess-verify"),
]
