"""URLs of all three roles, the admin and django-oauth-toolkit."""

from django.contrib import admin
from django.urls import include, path

from .views import UsersSelf

urlpatterns = [
    path("admin/", admin.site.urls),
    path("o/", include("oauth2_provider.urls")),
    path("", include("instaccess.urls")),
    path("api/v1/users/self", UsersSelf.as_view()),
]
