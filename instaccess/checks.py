"""`manage.py check`: every bad or unsafe setting has its own id and says what to write instead.

`check --database default` looks at the keys; what `check --deploy` adds stands in `deployment_checks.py`.
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

from . import keys, settingvalues
from .conf import SCOPE, SETTINGS, conf
from .exceptions import ConfigError, UnsealError
from .models import IssuedToken, Key

BAD_SETTING_IDS = {
    "ISSUER": "instaccess.E010",
    "LIFETIME": "instaccess.E011",
    "REGION": "instaccess.E012",
    "SHARD_ID": "instaccess.E013",
    "ACCOUNT_UUID": "instaccess.E014",
    "ACCOUNT_HOOK": "instaccess.E015",
    "USER_UUID_FIELD": "instaccess.E016",
    "CLAIMS_HOOK": "instaccess.E017",
    "ENCRYPTION_ALG": "instaccess.E018",
    "CONTENT_ENCRYPTION": "instaccess.E019",
    "SIGNING_ALG": "instaccess.E020",
    "KEY_SIZE": "instaccess.E021",
    "ALLOW_UNENCRYPTED": "instaccess.E022",
    "KEY_ENCRYPTION_KEYS": "instaccess.E023",
    "KEY_CACHE_SECONDS": "instaccess.E024",
    "REALM": "instaccess.E025",
    "ALLOW_TOKEN_IN_PARAMETERS": "instaccess.E026",
    "TRUSTED_PROXIES": "instaccess.E027",
    "KEY_ROTATION_DAYS": "instaccess.E028",
    "KEY_LEAD_SECONDS": "instaccess.E029",
    "KEY_RETENTION_SECONDS": "instaccess.E030",
    "JWKS_MAX_AGE": "instaccess.E031",
    "LEEWAY": "instaccess.E032",
    "DECRYPTION_KEYS": "instaccess.E033",
    "VERIFICATION_KEYS": "instaccess.E034",
    "DENY_LIST": "instaccess.E035",
    "DENY_LIST_SECONDS": "instaccess.E036",
    "MAX_STALENESS": "instaccess.E037",
    "SERVICE_SECRETS": "instaccess.E038",
    "OTHER_BEARERS": "instaccess.E039",
    "REMEMBERED_TOKENS": "instaccess.E040",
    "ALLOW_HTTP_URLS": "instaccess.E041",
    "USER_HOOK": "instaccess.E042",
    "MASQUERADE_HOOK": "instaccess.E043",
    "THROTTLE_LIMIT": "instaccess.E044",
    "THROTTLE_COST": "instaccess.E045",
    "THROTTLE_LEAK": "instaccess.E046",
    "THROTTLE_STATUS": "instaccess.E047",
    "THROTTLE_CACHE": "instaccess.E048",
    "AUDIT_RETENTION_DAYS": "instaccess.E049",
}


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Unknown names and bad values."""
    try:
        names = settingvalues.configured()
    except ConfigError as error:
        return [Error(error.detail, hint='Write INSTACCESS = {"LIFETIME": 3600, …}.', id="instaccess.E001")]
    messages: list[CheckMessage] = [
        Error(
            f"INSTACCESS[{name!r}] is not a setting of instaccess.",
            hint="The settings are " + ", ".join(SETTINGS) + ".",
            id="instaccess.E002",
        )
        for name in names
        if name not in SETTINGS
    ]
    for name, attribute in SETTINGS.items():
        try:
            getattr(conf, attribute)
        except ConfigError as error:
            # One that depends on another bad one has nothing to add.
            if error.setting == name:
                messages.append(Error(error.detail + ".", id=BAD_SETTING_IDS[name]))
    return messages


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
    except DbError:
        return []  # not migrated yet, or away: Django says that itself
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
