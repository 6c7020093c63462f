"""The URL of the issuing endpoint: `path("", include("instaccess.issuer.urls"))`."""

from django.urls import re_path

from . import views

urlpatterns = [
    # The pattern also matches `.json` and a trailing slash. Otherwise, APPEND_SLASH would redirect a POST.
    re_path(r"^api/v1/inst_access_tokens(?:\.json)?/?$", views.issue, name="instaccess-issue"),
]
