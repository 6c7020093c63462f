"""`manage.py check` for every role, with our app installed or only `instaccess.standalone`: no models here.

Each bad or unsafe setting has an id of its own, in one row with those of `checks.py`, and says what to write instead.
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
from . import denylist, sources

_MIN_JWCRYPTO = (1, 6, 1)


@register()
def check_key_material(**kwargs: Any) -> list[CheckMessage]:
    """Keys in settings and in files can be used. A warning: whoever runs this need not be who may read them."""
    messages: list[CheckMessage] = []
    for setting, configured, load in (
        ("DECRYPTION_KEYS", _value("decryption_keys"), sources.decryption_keys),
        ("VERIFICATION_KEYS", _value("verification_keys"), sources.verification_keys),
    ):
        if not isinstance(configured, list):
            continue  # a URL is not read here
        try:
            load()
        except ConfigError as error:
            hint = "Until that is put right, requests get a 503 wherever these keys are needed."
            check_id = {"DECRYPTION_KEYS": "instaccess.W011", "VERIFICATION_KEYS": "instaccess.W012"}[setting]
            messages.append(Warning(error.detail + ".", hint=hint, id=check_id))
    return messages


@register()
def check_sources(**kwargs: Any) -> list[CheckMessage]:
    """A gateway or a service has somewhere to take its keys and its deny list from."""
    messages: list[CheckMessage] = []
    if _value("deny_list") not in {"database", _BAD} and _value("service_secrets") == []:
        messages.append(
            Error(
                f"{denylist.NOTHING_TO_SEND}.",
                hint="Put the secret there that the issuer has in its own SERVICE_SECRETS.",
                id="instaccess.E050",
            )
        )
    if sources.has_key_table():
        return messages  # what is not set comes from its tables
    needed = {"VERIFICATION_KEYS": "instaccess.E052"}
    if _verify_path() is not None:
        needed["DECRYPTION_KEYS"] = "instaccess.E051"
        if _value("deny_list") == "database" and not denylist.has_database():
            messages.append(
                Error(
                    f"{denylist.NO_DATABASE}.",
                    hint="Set it to the URL of the issuer's /internal/services/revocations, or share its database.",
                    id="instaccess.E053",
                )
            )
    return messages + [
        Error(
            f"INSTACCESS[{setting!r}] is not set, and there is no table of keys: our app is not in INSTALLED_APPS.",
            hint="Set it, as the README shows for a gateway and for a service.",
            id=check_id,
        )
        for setting, check_id in needed.items()
        if _value(setting.lower()) is None
    ]


@register(deploy=True)
def check_jwcrypto(**kwargs: Any) -> list[CheckMessage]:
    """No version with known holes."""
    version = importlib.metadata.version("jwcrypto")
    if _version(version) >= _MIN_JWCRYPTO:
        return []
    hint = 'Run `pip install --upgrade "jwcrypto>=1.6.1"`.'
    return [Error(f"jwcrypto {version} has known holes.", hint=hint, id="instaccess.E007")]


@register(deploy=True)
def check_redirects(**kwargs: Any) -> list[CheckMessage]:
    """A proxy that asks the gateway gets an answer, and no redirect."""
    path = _verify_path()
    if (
        path is None
        or not settings.SECURE_SSL_REDIRECT
        or any(re.search(exempt, path) for exempt in settings.SECURE_REDIRECT_EXEMPT)
    ):
        return []
    return [
        Warning(
            "SECURE_SSL_REDIRECT answers a proxy that asks the gateway with a redirect, which lets nobody in.",
            hint=r'Set SECURE_REDIRECT_EXEMPT = [r"^internal/"], or have the proxy send X-Forwarded-Proto.',
            id="instaccess.W010",
        )
    ]


def _verify_path() -> str | None:
    """Where a proxy asks the gateway; None where this deployment has none."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return None
    try:
        return reverse("instaccess-verify").lstrip("/")
    except (NoReverseMatch, ImproperlyConfigured):
        return None


_BAD = object()


def _value(attribute: str) -> Any:
    """A setting; `_BAD` where it is bad, which `check_settings` says."""
    try:
        return getattr(conf, attribute)
    except ConfigError:
        return _BAD


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
