"""The URL of the issuing endpoint: `path("", include("instaccess.issuer.urls"))`."""

from django.urls import path, re_path

from . import views

urlpatterns = [
    path("api/v1/inst_access_tokens", views.issue, name="instaccess-issue"),
    # Canvas also accepts the path with `.json`. The pattern matches a trailing slash too, so that APPEND_SLASH
    # doesn't redirect a POST.
    re_path(
        r"^api/v1/inst_access_tokens(?:\.json/?|/)$",
        views.issue_at_other_path,
        name="instaccess-issue-at-other-path",
    ),
]
