"""The URLs of the gateway: `path("", include("instaccess.gateway.urls"))`."""

from django.urls import path

from ..monitoring import monitoring_urls
from . import views

urlpatterns = [
    path("internal/gateway/verify", views.verify, name="instaccess-verify"),
    *monitoring_urls("gateway"),
]
