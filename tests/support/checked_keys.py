"""OpenSSL checks a private key whenever it is loaded, for 35 ms, and the same few are loaded in nearly every test and
in the processes it starts. Here numbers that have passed are not checked again; others, good or bad, are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jwcrypto.jwk import JWK

_passed: set[int] = set()
_load = JWK._rsa_pri


def load(self: Any) -> Any:
    """Stands in for JWK._rsa_pri."""
    if self._cache_pri_k is None:
        numbers = self._rsa_pri_n()
        if hash(numbers) in _passed:
            self._cache_pri_k = numbers.private_key(unsafe_skip_rsa_key_validation=True)
        else:
            _load(self)
            _passed.add(hash(numbers))
    return self._cache_pri_k


def passed() -> set[int]:
    """What another process need not check, for `trust`."""
    return _passed


def trust(passed: Iterable[int]) -> None:
    _passed.update(passed)


def trust_generated(key: JWK) -> None:
    """OpenSSL has made it just now."""
    _passed.add(hash(key._rsa_pri_n()))
