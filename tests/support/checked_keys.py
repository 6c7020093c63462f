"""A replacement for the function with which jwcrypto loads private keys, to validate each key only once.

OpenSSL takes 35 ms to validate a private key, and nearly every test loads the same few keys. If a key was valid once,
the replacement doesn't validate the key again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jwcrypto.jwk import JWK

_valid: set[int] = set()
_load = JWK._rsa_pri


def load(self: Any) -> Any:
    """Load and return the private key of a JWK. This function replaces `JWK._rsa_pri`."""
    if self._cache_pri_k is None:
        numbers = self._rsa_pri_n()
        if hash(numbers) in _valid:
            self._cache_pri_k = numbers.private_key(unsafe_skip_rsa_key_validation=True)
        else:
            _load(self)
            _valid.add(hash(numbers))
    return self._cache_pri_k


def valid_keys() -> set[int]:
    """Return the hashes of the keys that are known to be valid, for `skip_validation` in another process."""
    return _valid


def skip_validation(hashes: Iterable[int]) -> None:
    _valid.update(hashes)


def skip_validation_of_generated(key: JWK) -> None:
    """Skip the validation of a key that OpenSSL has just generated, because such a key is valid."""
    _valid.add(hash(key._rsa_pri_n()))
