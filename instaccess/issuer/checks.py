"""`manage.py check` where the app is installed: what it needs of the project, and what `--deploy` adds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, router

from ..conf import SCOPE, conf
from ..exceptions import ConfigError
from ..models import IssuedToken


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


@register(deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """What is unsafe in production."""
    with contextlib.suppress(ConfigError):  # check_settings says it
        return [
            Warning(text, hint=hint, id=f"instaccess.{check_id}")
            for found, check_id, text, hint in _unsafe()
            if found
        ]
    return []


def _unsafe() -> Sequence[tuple[bool, str, str, str]]:
    default_scopes = getattr(settings, "OAUTH2_PROVIDER", {}).get("DEFAULT_SCOPES", ["__all__"])
    wildcard = any(host == "*" or host.startswith(".") for host in settings.ALLOWED_HOSTS)
    return (
        (
            conf.encryption_alg == "RSA1_5",
            "W001",
            "INSTACCESS['ENCRYPTION_ALG'] is RSA1_5, which padding-oracle attacks have broken time and again.",
            "Use RSA-OAEP, as Canvas does today.",
        ),
        (
            conf.key_encryption_keys_are_derived,
            "W002",
            "Private keys are sealed under a key derived from SECRET_KEY: who learns one has both.",
            "Set INSTACCESS['KEY_ENCRYPTION_KEYS'] to a list with one key, made by "
            '`python -c "import secrets; print(secrets.token_urlsafe(32))"`.',
        ),
        (
            apps.is_installed("oauth2_provider") and bool({"__all__", SCOPE} & set(default_scopes)),
            "W003",
            "Every OAuth2 access token that asks for no scope can issue InstAccess tokens: "
            "OAUTH2_PROVIDER['DEFAULT_SCOPES'] is ['__all__'] (the default), or names the issuing scope.",
            "List the default scopes there, without the issuing scope.",
        ),
        (
            conf.allow_unencrypted,
            "W004",
            "INSTACCESS['ALLOW_UNENCRYPTED'] is on: with DEBUG, callers can ask for bare signed tokens.",
            "Leave it to the settings of development.",
        ),
        (
            conf.allow_token_in_parameters,
            "W005",
            "INSTACCESS['ALLOW_TOKEN_IN_PARAMETERS'] is on: access tokens end up in server and proxy logs.",
            "Have clients send `Authorization: Bearer` and turn it off.",
        ),
        (
            conf.throttle_limit is not None
            and settings.CACHES[conf.throttle_cache]["BACKEND"].rpartition(".")[2] in {"LocMemCache", "DummyCache"},
            "W009",
            "The throttle's cache is one of each process alone: with n workers n times as many tokens pass.",
            "Point INSTACCESS['THROTTLE_CACHE'] at a Redis cache, or set INSTACCESS['THROTTLE_LIMIT'] to None.",
        ),
        (
            wildcard and conf.account_uuid is None and conf.account_hook is None,
            "W006",
            "The account claim is derived from the Host header, and ALLOWED_HOSTS lets clients choose it.",
            "Set INSTACCESS['ACCOUNT_UUID'] or ['ACCOUNT_HOOK'], or list ALLOWED_HOSTS without wildcards.",
        ),
        (
            not (settings.SECURE_SSL_REDIRECT or settings.SECURE_PROXY_SSL_HEADER),
            "W007",
            "Nothing says that requests come over TLS: bearer tokens would travel in clear.",
            "Set SECURE_SSL_REDIRECT, or SECURE_PROXY_SSL_HEADER behind a proxy that ends TLS.",
        ),
    )
