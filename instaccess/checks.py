"""`manage.py check` where the app is installed: what it needs of the project, and, with `--database`, its keys.

What every role's settings must be stands in `role_checks.py`, what `check --deploy` adds in `deployment_checks.py`.
Each finding has an id of its own and says what to write instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import FieldDoesNotExist
from django.db import Error as DbError
from django.db import connections, router

from . import keys
from .conf import SCOPE, conf
from .exceptions import ConfigError, UnsealError
from .models import IssuedToken, Key


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


@register(Tags.database)
def check_keys(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """There are keys, and they open. Runs with `check --database` and before `migrate`."""
    if not databases or router.db_for_write(Key) not in databases:
        return []
    try:
        missing = keys.missing()
        keys.check_sealed_keys()
    except DbError as error:
        return _away(router.db_for_write(Key), error)  # or not migrated yet, which `migrate` is about to mend
    except ConfigError:
        return []  # check_settings says it
    except UnsealError as error:
        return [Error(f"A sealed private key does not open: {error.detail}.", id="instaccess.E008")]
    if not missing:
        return []
    return [
        Warning(
            "There is no " + ", no ".join(f"{status} {use.label} key" for use, status in missing) + ".",
            hint="Run `python manage.py instaccess_init`.",
            id="instaccess.W008",
        )
    ]


def _away(alias: str, error: DbError) -> list[CheckMessage]:
    if connections[alias].in_atomic_block:
        return []  # where one error is followed by others, whatever it was
    try:
        connections[alias].introspection.table_names()
    except DbError:
        return [
            Error(
                f"The database {alias!r} can't be asked for keys: {type(error).__name__}.",
                hint=f"See that it runs, and look at DATABASES[{alias!r}].",
                id="instaccess.E009",
            )
        ]
    return []
