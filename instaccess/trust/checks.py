"""System checks of the keys and the deny list, for the issuer, a gateway and a service.

This module imports no models, because a gateway or a service may lack this app's tables. Each missing or unsafe
setting has a separate check id.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse

from ..conf import conf
from ..exceptions import ConfigError
from . import revocation_table, revocation_url, sources

_MIN_JWCRYPTO = (1, 6, 1)


@register()
def check_key_material(**kwargs: Any) -> list[CheckMessage]:
    """Check that the keys in DECRYPTION_KEYS and VERIFICATION_KEYS can be used.

    An unusable key causes only a warning, because the user who runs the check may lack permission to read key files.
    """
    messages: list[CheckMessage] = []
    for setting, configured, load in (
        ("DECRYPTION_KEYS", _read_setting("decryption_keys"), sources.decryption_keys),
        ("VERIFICATION_KEYS", _read_setting("verification_keys"), sources.verification_keys),
    ):
        if not isinstance(configured, list):
            continue  # The JWKS URL is not fetched, because a check must not depend on another server.
        try:
            load()
        except ConfigError as error:
            hint = (
                "If only the user of the server may read the file of a key, run the check as this user. Otherwise, "
                "correct the setting. Every request that needs a key from the setting gets a 503 until the setting "
                "is valid."
            )
            check_id = {"DECRYPTION_KEYS": "instaccess.W011", "VERIFICATION_KEYS": "instaccess.W012"}[setting]
            messages.append(Warning(error.detail + ".", hint=hint, id=check_id))
    return messages


@register()
def check_sources(**kwargs: Any) -> list[CheckMessage]:
    """Check that a gateway or a service has a source for its keys and its deny list."""
    messages: list[CheckMessage] = []
    if _read_setting("deny_list") not in {"database", _INVALID} and _read_setting("service_secrets") == []:
        messages.append(
            Error(
                f"{revocation_url.NO_SERVICE_CREDENTIALS}.",
                hint="Add a secret from the issuer's SERVICE_SECRETS to INSTACCESS['SERVICE_SECRETS'].",
                id="instaccess.E050",
            )
        )
    if sources.has_key_table():
        return messages  # The database contains the keys and the deny list, so the settings are not required.
    required = {"VERIFICATION_KEYS": "instaccess.E052"}
    if _verify_path() is not None:
        required["DECRYPTION_KEYS"] = "instaccess.E051"
        if _read_setting("deny_list") == "database" and not revocation_table.has_database():
            messages.append(
                Error(
                    f"{revocation_table.NO_DATABASE}.",
                    hint="Set INSTACCESS['DENY_LIST'] to the URL of the issuer's /internal/services/revocations, or "
                    "set DATABASES['default'] to the issuer's database.",
                    id="instaccess.E053",
                )
            )
    return messages + [
        Error(
            f"INSTACCESS[{setting!r}] is not set, and 'instaccess' with its key table is not in INSTALLED_APPS.",
            hint=f"Set {setting} as the documentation describes for a gateway and for a service.",
            id=check_id,
        )
        for setting, check_id in required.items()
        if _read_setting(setting.lower()) is None
    ]


@register(deploy=True)
def check_jwcrypto(**kwargs: Any) -> list[CheckMessage]:
    """Check that the installed jwcrypto has no known vulnerability."""
    version = importlib.metadata.version("jwcrypto")
    if _parse_version(version) >= _MIN_JWCRYPTO:
        return []
    hint = 'Run `pip install --upgrade "jwcrypto>=1.6.1"`.'
    return [Error(f"jwcrypto {version} has known vulnerabilities.", hint=hint, id="instaccess.E007")]


@register(deploy=True)
def check_redirects(**kwargs: Any) -> list[CheckMessage]:
    """Check that SECURE_SSL_REDIRECT does not redirect the requests that a proxy sends to the gateway."""
    path = _verify_path()
    if (
        path is None
        or not settings.SECURE_SSL_REDIRECT
        or any(re.search(exempt, path) for exempt in settings.SECURE_REDIRECT_EXEMPT)
    ):
        return []
    return [
        Warning(
            "SECURE_SSL_REDIRECT redirects the requests that the proxy sends to the gateway, so the proxy refuses "
            "every client.",
            hint=r'Add r"^internal/" to the list SECURE_REDIRECT_EXEMPT. Or set SECURE_PROXY_SSL_HEADER, and '
            "configure the proxy to send this header.",
            id="instaccess.W010",
        )
    ]


@register(deploy=True)
def check_http_urls(**kwargs: Any) -> list[CheckMessage]:
    """Warn if keys and the deny list may be read without TLS."""
    if _read_setting("allow_http_urls") is not True:
        return []
    return [
        Warning(
            "INSTACCESS['ALLOW_HTTP_URLS'] is on: a man in the middle can replace the keys and hide revocations.",
            hint="Use https:// URLs, and turn off INSTACCESS['ALLOW_HTTP_URLS']. Use this setting only in "
            "development.",
            id="instaccess.W020",
        )
    ]


def _verify_path() -> str | None:
    """Return the path of the gateway's endpoint without the leading slash, or None if the project has no gateway."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return None
    try:
        return reverse("instaccess-verify").lstrip("/")
    except (NoReverseMatch, ImproperlyConfigured):
        return None


_INVALID = object()


def _read_setting(attribute: str) -> Any:
    """Return the value of a property of `conf`, or `_INVALID` if the setting is invalid.

    The check `check_settings` reports invalid settings.
    """
    try:
        return getattr(conf, attribute)
    except ConfigError:
        return _INVALID


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
