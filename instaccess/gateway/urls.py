"""The URL of the gateway's endpoint: `path("", include("instaccess.gateway.urls"))`."""

from django.urls import path

from . import views

urlpatterns = [
    path("internal/gateway/verify", views.verify, name="instaccess-verify"),
]
