"""The URLs of an issuer with django-oauth-toolkit."""

from django.urls import include, path

urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("", include("instaccess.urls")),
]
