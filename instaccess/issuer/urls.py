"""The URL of the issuing endpoint: `path("", include("instaccess.issuer.urls"))`."""

from django.urls import re_path

from . import views

urlpatterns = [
    # Canvas also accepts the path with `.json`. The pattern matches a trailing slash too, so that APPEND_SLASH
    # doesn't redirect a POST.
    re_path(r"^api/v1/inst_access_tokens(?:\.json)?/?$", views.issue, name="instaccess-issue"),
]
