"""Every role's urls: `path("", include("instaccess.urls"))`. A deployment that plays one role includes that one's."""

from django.urls import include, path

urlpatterns = [
    path("", include("instaccess.urls_issuer")),
    path("", include("instaccess.urls_services")),
    path("", include("instaccess.urls_gateway")),
]
