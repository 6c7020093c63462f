"""How one value of `INSTACCESS` is read, or refused in words that say what to write instead."""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.encoding import force_bytes
from django.utils.module_loading import import_string

from ..exceptions import ConfigError

_T = TypeVar("_T")

KEK_BYTES = 32

SECRET = re.compile(r"[A-Za-z0-9._~+/-]{32,255}", re.ASCII)

KEK_FORMAT = (
    "a list of base64url texts of 32 random bytes each; make one with "
    '`python -c "import secrets; print(secrets.token_urlsafe(32))"`'
)


_configured: Mapping[str, Any] | None = None
_checked: ContextVar[Mapping[str, Any] | None] = ContextVar("checked", default=None)
_names: frozenset[str] = frozenset()


def set_known_names(names: Iterable[str]) -> None:
    """Which settings there are."""
    global _names  # noqa: PLW0603
    _names = frozenset(names)


def written() -> Mapping[str, Any]:
    """The INSTACCESS dictionary as the project wrote it."""
    value = getattr(settings, "INSTACCESS", {})
    if not isinstance(value, Mapping):
        raise ConfigError("INSTACCESS must be a dictionary of settings", setting="INSTACCESS")
    return value


def configured() -> Mapping[str, Any]:
    """The same, if there are only settings in it that we know: with its ACCOUNT_UUID misspelled, a service would take
    the tokens of every account, and where the app is not installed no check has to have run.

    It is looked up once, and again when Django says that a setting has changed, as DRF does it with its own:
    `settings.INSTACCESS` takes Django a microsecond, and this is read some twenty times a token.
    """
    global _configured  # noqa: PLW0603
    if _configured is None:
        if (checked := _checked.get()) is not None:
            return checked
        value = written()
        for name in value:
            if name not in _names:
                raise ConfigError(
                    f"INSTACCESS[{name!r}] is not a setting of instaccess. {did_you_mean(name)}The README lists them",
                    setting=str(name),
                )
        _configured = value
    return _configured


@contextmanager
def reading(values: Mapping[str, Any]) -> Iterator[None]:
    """These values as the settings, for a check and nobody else: to tell of bad ones beside an unknown one.

    They count only as long as the project's own are not accepted.
    """
    token = _checked.set(values)
    try:
        yield
    finally:
        _checked.reset(token)


@receiver(setting_changed)
def _look_again(*, setting: str, **kwargs: Any) -> None:
    global _configured  # noqa: PLW0603
    if setting == "INSTACCESS":
        _configured = None


def get(name: str, default: Any) -> Any:
    """What the project wrote under a name, or the default."""
    return (configured() if _configured is None else _configured).get(name, default)


def invalid(name: str, expected: str) -> ConfigError:
    """The error for a value that is not what is expected."""
    # A text stays out of it, also one in a list: KEY_ENCRYPTION_KEYS passes here too.
    value = get(name, None)
    shown = repr(value) if value is None or isinstance(value, (bool, int)) else f"of type {type(value).__name__}"
    found = "" if isinstance(value, (str, list, tuple)) else f" (it is {shown})"
    return ConfigError(f"INSTACCESS[{name!r}] must be {expected}{found}", setting=name)


def did_you_mean(name: object) -> str:
    """A question for who misspelled a setting, with a blank behind it; empty where nothing is like it."""
    like = difflib.get_close_matches(str(name).upper(), sorted(_names), n=1)
    return f"Did you mean {like[0]}? " if like else ""


def text(name: str, default: str) -> str:
    """A text of 1 to 255 characters."""
    value = get(name, default)
    if not isinstance(value, str) or not 1 <= len(value) <= 255:
        raise invalid(name, "a text of 1 to 255 characters")
    return value


def optional_text(name: str) -> str | None:
    """The same, or None."""
    return None if get(name, None) is None else text(name, "")


def integer(name: str, default: int, least: int, most: int) -> int:
    """An integer within bounds; True and 1.0 are none."""
    value = get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise invalid(name, f"an integer from {least} to {most}")
    return value


def at_least(name: str, least: int, why: str) -> int:
    """An integer of at least what is safe; that when it is None."""
    value = get(name, None)
    if value is None:
        return least
    if type(value) is not int or value < least:
        raise invalid(
            name, f"an integer of at least {least} ({why}), or a live token could be refused; or None for that"
        )
    return value


def url(name: str, value: str, *, allow_http: bool) -> str:
    """A URL to read keys or the deny list from: https, or http too where that is allowed."""
    schemes = ("https://", "http://") if allow_http else ("https://",)
    try:
        parts = urlsplit(value)
        usable = value.startswith(schemes) and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:  # such as a broken IPv6 address
        usable = False
    if not usable:
        raise invalid(
            name, "an https:// URL (http:// only with INSTACCESS['ALLOW_HTTP_URLS']) without user name or password"
        )
    return value


def key_texts(name: str) -> list[str] | None:
    """Keys, each as text or as the path of a file; or None."""
    value = get(name, None)
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(text, (str, Path)) for text in value):
        raise invalid(name, "a list of keys, each PEM, JWK or the path of a file with one; or None")
    return [str(text) for text in value]


def boolean(name: str, *, default: bool) -> bool:
    """True or False, and nothing that merely passes for one."""
    value = get(name, default)
    if not isinstance(value, bool):
        raise invalid(name, "True or False")
    return value


def choice(name: str, default: _T, choices: tuple[_T, ...]) -> _T:
    """One of a few values."""
    value = get(name, default)
    if value not in choices or type(value) is not type(default):
        raise invalid(name, "one of " + ", ".join(map(repr, choices)))
    return value


def function(name: str) -> Callable[..., Any] | None:
    """A callable, or what a dotted path leads to; or None."""
    value: Any = get(name, None)
    if isinstance(value, str):
        try:
            value = import_string(value)
        except (ImportError, TypeError, ValueError) as error:  # the last two for a path such as ".hook" or "..hook"
            raise ConfigError(f"INSTACCESS[{name!r}] cannot be imported: {error}", setting=name) from error
    if value is None:
        return None
    if not callable(value):
        raise invalid(name, "a callable, the dotted path of one, or None")
    function: Callable[..., Any] = value
    return function


@lru_cache(maxsize=8)
def derived_key(secret: str | bytes) -> bytes:
    """A key-encryption key from a secret of Django's: HKDF-SHA256 (RFC 5869)."""
    kdf = HKDF(SHA256(), KEK_BYTES, salt=None, info=b"instaccess key-encryption key v1")
    return kdf.derive(force_bytes(secret))


def key_encryption_key(item: object) -> bytes:
    """A key-encryption key from its base64url text. The error never holds the text."""
    if not isinstance(item, str):
        raise invalid("KEY_ENCRYPTION_KEYS", KEK_FORMAT)
    try:
        key = base64.b64decode(item + "=" * (-len(item) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise invalid("KEY_ENCRYPTION_KEYS", KEK_FORMAT) from None
    if len(key) != KEK_BYTES:
        raise invalid("KEY_ENCRYPTION_KEYS", KEK_FORMAT)
    return key


def kek_id(kek: bytes) -> str:
    """A short name for a key-encryption key. It may be stored beside what the key sealed or authenticated."""
    digest = hashlib.sha256(b"instaccess kek id\0" + kek).digest()
    return base64.urlsafe_b64encode(digest[:9]).decode("ascii")
