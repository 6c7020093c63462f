"""What the issuer tells gateways and services: `path("", include("instaccess.urls_services"))`."""

from django.urls import path

from . import jwks, revocations

urlpatterns = [
    path("internal/services/jwks", jwks.jwks, name="instaccess-jwks"),
    path("internal/services/revocations", revocations.revocations, name="instaccess-revocations"),
]
