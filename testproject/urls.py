"""The URLs of all three roles, of the admin, of django-oauth-toolkit, and of a first page with links to them."""

from django.contrib import admin
from django.urls import include, path, re_path

from .views import UsersSelf, home

urlpatterns = [
    path("", home),
    path("admin/", admin.site.urls),
    path("o/", include("oauth2_provider.urls")),
    path("", include("instaccess.urls")),
    re_path(r"^api/v1/users/self/?$", UsersSelf.as_view()),
]
