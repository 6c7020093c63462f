"""The URLs for gateways, services and monitoring: `path("", include("instaccess.issuer.urls_internal"))`."""

from django.urls import path

from ..monitoring import monitoring_urls
from . import internal_views

urlpatterns = [
    path("internal/services/jwks", internal_views.jwks, name="instaccess-jwks"),
    path("internal/services/revocations", internal_views.revocations, name="instaccess-revocations"),
    *monitoring_urls("issuer"),
]
