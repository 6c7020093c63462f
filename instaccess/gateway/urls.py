"""The URLs of the gateway: `path("", include("instaccess.gateway.urls"))`."""

from django.urls import path

from ..monitoring import health_urls
from . import views

urlpatterns = [
    path("internal/gateway/verify", views.verify, name="instaccess-verify"),
    *health_urls("gateway"),
]
