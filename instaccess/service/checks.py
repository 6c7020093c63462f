"""System check of a service that uses Django REST framework. This module imports no models.

The number in the check id continues the numbers in `instaccess/issuer/checks.py`.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from rest_framework.settings import DEFAULTS, api_settings


@register()
def check_anonymous_user(**kwargs: Any) -> list[CheckMessage]:
    """Check that Django REST framework can create its anonymous user.

    If Django REST framework can't create the user, a request without credentials gets a 500 instead of a 401.
    """
    if not apps.is_installed("rest_framework") and not hasattr(settings, "REST_FRAMEWORK"):
        return []  # The service uses another framework (docs/services-without-drf.md).
    default = DEFAULTS["UNAUTHENTICATED_USER"]
    # Compare the dotted path, and don't import the class, because importing Django's AnonymousUser would raise an
    # error.
    if api_settings.user_settings.get("UNAUTHENTICATED_USER", default) != default:
        return []
    if apps.is_installed("django.contrib.auth"):
        return []
    return [
        Error(
            "A request without credentials causes an error, because Django REST framework's anonymous user needs "
            "'django.contrib.auth', which is not in INSTALLED_APPS.",
            hint="Set REST_FRAMEWORK['UNAUTHENTICATED_USER'] to None, or add 'django.contrib.auth' and "
            "'django.contrib.contenttypes' to INSTALLED_APPS.",
            id="instaccess.E061",
        )
    ]
