"""System checks of the issuer: requirements of the host project, and warnings for `manage.py check --deploy`."""

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
from oauth2_provider.models import get_access_token_model, get_application_model

from .. import users
from ..conf import SCOPE, conf
from ..exceptions import ConfigError
from ..models import IssuedToken
from . import throttling
from .middleware import find_transactions


@register()
def check_user_uuid_field(**kwargs: Any) -> list[CheckMessage]:
    """Check that USER_UUID_FIELD is a unique field of the user model."""
    try:
        name = conf.user_uuid_field
        field: Any = name and get_user_model()._meta.get_field(name)
    except ConfigError:
        return []  # `check_settings` reports the invalid setting.
    except FieldDoesNotExist:
        field = None
    if name is None or (field is not None and field.concrete and field.unique and not field.is_relation):
        return []
    return [
        Error(
            f"INSTACCESS['USER_UUID_FIELD'] is {name!r}, which isn't a unique field of the user model: "
            "two users could have the same uuid.",
            hint="Set INSTACCESS['USER_UUID_FIELD'] to a field of AUTH_USER_MODEL that has unique=True and that "
            "users can't edit, or remove the setting.",
            id="instaccess.E003",
        )
    ]


@register()
def check_project(**kwargs: Any) -> list[CheckMessage]:
    """Check the settings of Django and django-oauth-toolkit that are required to issue tokens."""
    messages: list[CheckMessage] = []
    if not settings.USE_TZ:
        messages.append(
            Error(
                "instaccess stores times in UTC, but USE_TZ is off.", hint="Set USE_TZ = True.", id="instaccess.E004"
            )
        )
    alias = router.db_for_write(IssuedToken)
    if not connections[alias].settings_dict["AUTOCOMMIT"]:
        messages.append(
            Error(
                f"DATABASES[{alias!r}]['AUTOCOMMIT'] is off, so audit rows would not be committed.",
                hint=f"Remove AUTOCOMMIT from DATABASES[{alias!r}].",
                id="instaccess.E005",
            )
        )
    messages += _check_scopes()
    return messages


def _check_scopes() -> list[CheckMessage]:
    """Check that access tokens can have the scope for issuing, and that this scope isn't a default scope."""
    messages: list[CheckMessage] = []
    provider: Any = getattr(settings, "OAUTH2_PROVIDER", {})
    if "SCOPES_BACKEND_CLASS" not in provider and SCOPE not in provider.get("SCOPES", {}):
        messages.append(
            Error(
                "OAUTH2_PROVIDER['SCOPES'] lacks the scope that an access token needs to get InstAccess tokens.",
                hint=f'Add "{SCOPE}": "Issue InstAccess tokens" to OAUTH2_PROVIDER["SCOPES"].',
                id="instaccess.E006",
            )
        )
    if {"__all__", SCOPE} & set(provider.get("DEFAULT_SCOPES", ["__all__"])):
        messages.append(
            Warning(
                "A client that requests an OAuth2 access token without a scope can get InstAccess tokens: "
                "OAUTH2_PROVIDER['DEFAULT_SCOPES'] is ['__all__'] (the default), or contains the issuing scope.",
                hint="Set OAUTH2_PROVIDER['DEFAULT_SCOPES'] to a list that contains neither '__all__' nor "
                f"{SCOPE!r}.",
                id="instaccess.W003",
            )
        )
    return messages


@register()
def check_permissions(**kwargs: Any) -> list[CheckMessage]:
    """Warn if the permissions of users can't be compared, because only superusers can then masquerade."""
    try:
        sources = [] if conf.masquerade_hook else users.sources_of_unlisted_permissions()
    except (ConfigError, ImportError):
        # `check_settings` reports an invalid setting. If a backend can't be imported, every login fails, so this
        # check doesn't report the backend.
        return []
    if not sources:
        return []
    return [
        Warning(
            "These classes from AUTHENTICATION_BACKENDS or AUTH_USER_MODEL grant permissions with has_perm, but have "
            f"no get_all_permissions that lists the same permissions: {', '.join(sources)}. The permissions of two "
            "users can't be compared, so only superusers can masquerade (as_user_id).",
            hint="Add get_all_permissions to each of these classes, or set INSTACCESS['MASQUERADE_HOOK']. If no "
            "user masquerades, add 'instaccess.W013' to SILENCED_SYSTEM_CHECKS.",
            id="instaccess.W013",
        )
    ]


@register()
def check_middleware(**kwargs: Any) -> list[CheckMessage]:
    """Warn about middleware that opens a transaction around the issuing endpoint."""
    paths = find_transactions()
    if not paths:
        return []
    return [
        Warning(
            "These entries of MIDDLEWARE open a transaction around each request, so no token can be issued: "
            f"{', '.join(paths)}. The audit row of a token must be committed before the token is returned.",
            hint="Exclude the issuing endpoint (/api/v1/inst_access_tokens). For django-reversion, use a subclass of "
            "the middleware with `atomic = False`, or with a `request_creates_revision` that returns False for this "
            "path. If the endpoint is already excluded, add 'instaccess.W021' to SILENCED_SYSTEM_CHECKS.",
            id="instaccess.W021",
        )
    ]


@register()
def check_tenants(**kwargs: Any) -> list[CheckMessage]:
    """Check that all tenants share the tables of this app, if the project has one database schema per tenant.

    A process uses the same keys and the same deny list for every request. If each tenant had its own tables, one
    tenant would be served with the keys of another tenant.
    """
    models = {IssuedToken, get_access_token_model(), get_application_model(), get_user_model()}
    configs = {apps.get_app_config(model._meta.app_label) for model in models}
    entries = _apps_per_tenant()
    names = [c.name for c in configs if {c.name, f"{type(c).__module__}.{type(c).__qualname__}"} & entries]
    if not names:
        return []
    return [
        Error(
            "The project has one database schema per tenant. These apps would have tables in each schema: "
            f"{', '.join(sorted(names))}. A process uses one set of keys, one deny list and one audit log for all "
            "tenants. One tenant would therefore be served with the keys of another tenant.",
            hint=(
                "List these apps in SHARED_APPS and not in TENANT_APPS, so that all tenants share the tables of "
                "these apps."
            ),
            id="instaccess.E060",
        )
    ]


def _apps_per_tenant() -> set[str]:
    """Return the entries of INSTALLED_APPS with tables in the schema of each tenant.

    Reads the settings of django-tenants (TENANT_APPS or TENANT_TYPES) and of django-pgschemas (TENANTS).
    """
    public = getattr(settings, "PUBLIC_SCHEMA_NAME", "public")
    kinds = {**getattr(settings, "TENANT_TYPES", {}), **getattr(settings, "TENANTS", {})}
    of_kinds = (kind.get("APPS", ()) for name, kind in kinds.items() if name != public)
    return set(getattr(settings, "TENANT_APPS", ())).union(*of_kinds)


@register(deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Warn about settings that are unsafe in production."""
    with contextlib.suppress(ConfigError):  # `check_settings` reports invalid settings.
        return [
            Warning(text, hint=hint, id=f"instaccess.{check_id}")
            for is_unsafe, check_id, text, hint in _unsafe_settings()
            if is_unsafe
        ]
    return []


def _unsafe_settings() -> Sequence[tuple[bool, str, str, str]]:
    """Return a tuple for each check: whether the settings are unsafe, the id, the warning and the hint."""
    wildcard = any(host == "*" or host.startswith(".") for host in settings.ALLOWED_HOSTS)
    return (
        (
            conf.encryption_alg == "RSA1_5",
            "W001",
            "INSTACCESS['ENCRYPTION_ALG'] is RSA1_5, which is vulnerable to padding-oracle attacks.",
            "Set INSTACCESS['ENCRYPTION_ALG'] to RSA-OAEP. Canvas uses RSA-OAEP too.",
        ),
        (
            conf.key_encryption_keys_are_derived,
            "W002",
            "Private keys are encrypted at rest with a key derived from SECRET_KEY: an attacker who learns "
            "SECRET_KEY can decrypt the private keys.",
            'Generate a key with `python -c "import secrets; print(secrets.token_urlsafe(32))"`. In '
            "INSTACCESS['KEY_ENCRYPTION_KEYS'], put this key first, before the current entries (by default, only "
            '"SECRET_KEY"). Restart every process, and run `python manage.py instaccess_keys reseal`. Then remove '
            '"SECRET_KEY" from the list.',
        ),
        (
            conf.allow_unencrypted,
            "W004",
            "INSTACCESS['ALLOW_UNENCRYPTED'] is on: while DEBUG is on, clients can request unencrypted tokens.",
            "Turn off INSTACCESS['ALLOW_UNENCRYPTED']. Use this setting only in development.",
        ),
        (
            conf.allow_token_in_parameters,
            "W005",
            "INSTACCESS['ALLOW_TOKEN_IN_PARAMETERS'] is on: access tokens may be written to server and proxy logs.",
            "Make clients send `Authorization: Bearer`, and turn off INSTACCESS['ALLOW_TOKEN_IN_PARAMETERS'].",
        ),
        (
            conf.throttle_limit is not None
            and settings.CACHES[conf.throttle_cache]["BACKEND"].rpartition(".")[2] in {"LocMemCache", "DummyCache"},
            "W009",
            "The cache in INSTACCESS['THROTTLE_CACHE'] isn't shared between processes, so n workers issue up to n "
            "times as many tokens as the limit allows.",
            "Set INSTACCESS['THROTTLE_CACHE'] to the alias of a Redis cache, or "
            "set INSTACCESS['THROTTLE_LIMIT'] to None.",
        ),
        (
            wildcard and conf.account_uuid is None and conf.account_hook is None,
            "W006",
            "The account claim is derived from the Host header, and a wildcard in ALLOWED_HOSTS lets "
            "clients choose the host.",
            "Set INSTACCESS['ACCOUNT_UUID'] or INSTACCESS['ACCOUNT_HOOK'], or remove wildcards from ALLOWED_HOSTS.",
        ),
        (
            not (settings.SECURE_SSL_REDIRECT or settings.SECURE_PROXY_SSL_HEADER),
            "W007",
            "No setting requires TLS for requests: bearer tokens may be sent unencrypted.",
            "Turn on SECURE_SSL_REDIRECT. Behind a proxy that terminates TLS, set SECURE_PROXY_SSL_HEADER instead.",
        ),
    )


@register(deploy=True)
def check_cache_timeouts(**kwargs: Any) -> list[CheckMessage]:
    """Warn if each request would wait forever for a Redis server that accepts connections but never answers."""
    with contextlib.suppress(ConfigError):  # `check_settings` reports invalid settings.
        if missing := throttling.missing_timeouts():
            alias = conf.throttle_cache
            return [
                Warning(
                    f"The Redis cache {alias!r} in INSTACCESS['THROTTLE_CACHE'] has no {' and no '.join(missing)}. "
                    "If Redis accepts connections but never answers, each request for a token waits forever.",
                    hint="Set "
                    + " and ".join(f"CACHES[{alias!r}]['OPTIONS'][{name!r}] = 0.5" for name in missing)
                    + ".",
                    id="instaccess.W035",
                )
            ]
    return []
