"""`manage.py check` where the app is installed: what it needs of the project, and, with `--database`, its keys.

What every role's settings must be stands in `role_checks.py`, what `check --deploy` adds in `deployment_checks.py`.
Each finding has an id of its own and says what to write instead.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, router

from .conf import SCOPE, conf
from .exceptions import ConfigError
from .models import IssuedToken


@register()
def check_user_uuid_field(**kwargs: Any) -> list[CheckMessage]:
    """USER_UUID_FIELD names a field there is."""
    try:
        name = conf.user_uuid_field
        field: Any = name and get_user_model()._meta.get_field(name)
    except ConfigError:
        return []  # E016 says it
    except FieldDoesNotExist:
        field = None
    if name is None or (field is not None and field.concrete and field.unique and not field.is_relation):
        return []
    return [
        Error(
            f"INSTACCESS['USER_UUID_FIELD'] names {name!r}, which is no unique field of the user model: "
            "two users could go by one name.",
            hint="Name a field of AUTH_USER_MODEL with unique=True that users can't edit, or leave the setting out.",
            id="instaccess.E003",
        )
    ]


@register()
def check_project(**kwargs: Any) -> list[CheckMessage]:
    """What the host project must have set elsewhere."""
    messages: list[CheckMessage] = []
    if not settings.USE_TZ:
        messages.append(Error("instaccess keeps its times in UTC.", hint="Set USE_TZ = True.", id="instaccess.E004"))
    alias = router.db_for_write(IssuedToken)
    if not connections[alias].settings_dict["AUTOCOMMIT"]:
        messages.append(
            Error(
                f"DATABASES[{alias!r}]['AUTOCOMMIT'] is off: no audit row would ever be committed.",
                hint="Remove it; Django opens transactions where they are needed.",
                id="instaccess.E005",
            )
        )
    provider: Any = getattr(settings, "OAUTH2_PROVIDER", {})
    if (
        apps.is_installed("oauth2_provider")
        and "SCOPES_BACKEND_CLASS" not in provider
        and SCOPE not in provider.get("SCOPES", {})
    ):
        messages.append(
            Error(
                "No OAuth2 access token can get the scope that issuing InstAccess tokens needs.",
                hint=f'Add "{SCOPE}": "Issue InstAccess tokens" to OAUTH2_PROVIDER["SCOPES"].',
                id="instaccess.E006",
            )
        )
    return messages
