"""Url lists, one a role: a deployment mounts all of them, or its own alone.

path("", include("instaccess.urls"))                # everything
path("", include(instaccess.urls.issuer))           # the issuing endpoint only
"""

from django.urls import path, re_path

from . import jwks, views

issuer = [
    # One pattern, for `.json` and for a trailing slash too: APPEND_SLASH has nothing to redirect.
    re_path(r"^api/v1/inst_access_tokens(?:\.json)?/?\Z", views.issue, name="instaccess-issue"),
]

services = [
    path("internal/services/jwks", jwks.jwks, name="instaccess-jwks"),
]

urlpatterns = [*issuer, *services]
