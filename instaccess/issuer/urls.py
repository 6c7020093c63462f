"""The issuer's urls alone: `path("", include("instaccess.urls_issuer"))`."""

from django.urls import re_path

from . import views

urlpatterns = [
    # One pattern, for `.json` and for a trailing slash too: APPEND_SLASH has nothing to redirect.
    re_path(r"^api/v1/inst_access_tokens(?:\.json)?/?$", views.issue, name="instaccess-issue"),
]
