"""Validation of the values in `INSTACCESS`, with one method per kind of value.

Each method returns the validated value, or raises ConfigError with a message that describes the accepted values.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.module_loading import import_string

from ..exceptions import ConfigError
from ..opaque import OpaqueText, concealed

_T = TypeVar("_T")


@concealed
def read_project_settings() -> Mapping[str, Any]:
    """Return the INSTACCESS dictionary of the project's settings, including unknown names. Raises ConfigError."""
    value = getattr(settings, "INSTACCESS", {})
    # Refuse mappings other than `dict`, because Django's error reports would print such a mapping with all secrets.
    if not isinstance(value, dict):
        raise ConfigError("INSTACCESS must be a dictionary of settings", setting="INSTACCESS")
    return value


def did_you_mean(name: object, known_names: Collection[str]) -> str:
    """Return a question such as "Did you mean LIFETIME? ", with a space at the end.

    Returns "" if no name is similar.
    """
    similar = difflib.get_close_matches(str(name).upper(), sorted(known_names))
    return f"Did you mean {similar[0]}? " if similar else ""


class Values:
    """The values of one INSTACCESS dictionary.

    Args:
        written: the dictionary to read. If None, the project's dictionary is loaded on first use and cached until
            `reset`. Without the cache, `settings.INSTACCESS` would be read about twenty times per token, and each
            read takes a microsecond.
    """

    def __init__(self, written: Mapping[str, Any] | None = None) -> None:
        self._written = written

    def reset(self) -> None:
        """Drop the dictionary. The next use then loads the project's dictionary."""
        self._written = None

    def _load(self) -> Mapping[str, Any]:
        return read_project_settings()

    def _get(self, name: str, default: Any) -> Any:
        written = self._written
        if written is None:
            written = self._written = self._load()
        return written.get(name, default)

    def _invalid(self, name: str, expected: str) -> ConfigError:
        # Strings and lists are left out of the error, because the value may be a secret.
        value = self._get(name, None)
        if isinstance(value, (str, list, tuple)):
            actual = ""
        elif value is None or isinstance(value, (bool, int)):
            actual = f" (it is {value!r})"
        else:
            actual = f" (it is of type {type(value).__name__})"
        return ConfigError(f"{self._describe(name)} must be {expected}{actual}", setting=name)

    def _describe(self, name: str) -> str:
        """Return the text that identifies a setting in an error message."""
        return f"INSTACCESS[{name!r}]"

    def _string(self, name: str, default: str) -> str:
        """Read a string of 1 to 255 characters."""
        value = self._get(name, default)
        if not isinstance(value, str) or not 1 <= len(value) <= 255:
            raise self._invalid(name, "a string of 1 to 255 characters")
        return value

    def _optional_string(self, name: str) -> str | None:
        """Read a string of 1 to 255 characters, or None."""
        return None if self._get(name, None) is None else self._string(name, "")

    def _integer(self, name: str, default: int, minimum: int, maximum: int, why: str = "") -> int:
        """Read an integer within bounds, both inclusive. `True` and `1.0` are refused. `why` explains the bounds."""
        value = self._get(name, default)
        if type(value) is not int or not minimum <= value <= maximum:
            raise self._invalid(name, f"an integer from {minimum} to {maximum}{why}")
        return value

    def _at_least(self, name: str, minimum: int, formula: str) -> int:
        """Read an integer that is at least the safe minimum. If the setting is None or absent, return the minimum.

        Args:
            formula: the settings from which the minimum is computed, for the error.
        """
        value = self._get(name, None)
        if value is None:
            return minimum
        if type(value) is not int or value < minimum:
            raise self._invalid(
                name,
                f"None, or an integer of at least {minimum} ({formula}); with a smaller value, valid tokens could be "
                "refused",
            )
        return value

    def _boolean(self, name: str, *, default: bool) -> bool:
        """Read True or False. Other truthy and falsy values, such as 1 or "", are refused."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._invalid(name, "True or False")
        return value

    def _choice(self, name: str, default: _T, choices: tuple[_T, ...]) -> _T:
        """Read a value that is one of the choices and has the type of the default, so `429.0` is refused."""
        value = self._get(name, default)
        if value not in choices or type(value) is not type(default):
            raise self._invalid(name, "one of " + ", ".join(map(repr, choices)))
        return value

    def _function(self, name: str) -> Callable[..., Any] | None:
        """Read a callable, the dotted path of a callable, or None."""
        value: Any = self._get(name, None)
        if isinstance(value, str):
            try:
                value = import_string(value)
            # `import_string` raises TypeError or ValueError for dotted paths such as ".hook" and "..hook".
            except (ImportError, TypeError, ValueError) as error:
                raise ConfigError(
                    f"INSTACCESS[{name!r}] can't be imported: {error}; correct the dotted path", setting=name
                ) from error
        if value is None:
            return None
        if not callable(value):
            raise self._invalid(name, "a callable, the dotted path of a callable, or None")
        function: Callable[..., Any] = value
        return function

    def _url(self, name: str, value: str, *, allow_http: bool) -> str:
        """Validate the URL of a JWKS or of a revocation list, and return the URL."""
        schemes = ("https://", "http://") if allow_http else ("https://",)
        try:
            parts = urlsplit(value)
            usable = value.startswith(schemes) and bool(parts.hostname) and "@" not in parts.netloc
        except ValueError:  # `urlsplit` refuses an invalid IPv6 address, for example.
            usable = False
        if not usable:
            raise self._invalid(
                name,
                "an https:// URL without user name or password (http:// only if "
                f"{self._describe('ALLOW_HTTP_URLS')} is True)",
            )
        return value

    def _key_list(self, name: str) -> list[OpaqueText] | None:
        """Read a list of keys, or None. Each entry is a PEM or JWK string, or the path of a file with a key."""
        value = self._get(name, None)
        if value is None:
            return None
        strings_or_paths = isinstance(value, (list, tuple)) and all(isinstance(item, (str, Path)) for item in value)
        if not strings_or_paths or not value:
            raise self._invalid(name, "None, or a list of keys, each a PEM or JWK string or the path of a file")
        return [OpaqueText(str(item)) for item in value]
