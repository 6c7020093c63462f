"""The URLs of an issuer whose OAuth2 endpoints are on another server, below a prefix."""

from django.urls import include, path

urlpatterns = [path("canvas/", include("instaccess.issuer.urls"))]
