"""The gateway's URL: `path("", include("instaccess.gateway.urls"))`. The view needs neither tables nor OAuth2."""

from django.urls import path

from . import views

urlpatterns = [
    path("internal/gateway/verify", views.verify, name="instaccess-verify"),
]
