"""Creation, parsing and validation of InstAccess tokens.

This package doesn't import Django and doesn't read settings. Callers pass in the keys and the current time.
"""

from .claim_values import AFTERLIFE, CLOCK_SKEW, MAX_LEEWAY, MAX_LIFETIME
from .claims import ATTRIBUTES, Claims, identifiers, is_canonical_uuid
from .compact import MAX_TOKEN_CHARS, nests_too_deep, peek_issuer, split_compact
from .jose import (
    CONTENT_ALGORITHMS,
    KEY_ALGORITHMS,
    LEGACY_KEY_ALGORITHMS,
    SIGNING_ALGORITHMS,
    ReloadableKeys,
    decrypt,
    encrypt,
    parse_encrypted,
    sign,
    verify,
)
from .private_key import PrivateKey

__all__ = [
    "AFTERLIFE",
    "ATTRIBUTES",
    "CLOCK_SKEW",
    "CONTENT_ALGORITHMS",
    "KEY_ALGORITHMS",
    "LEGACY_KEY_ALGORITHMS",
    "MAX_LEEWAY",
    "MAX_LIFETIME",
    "MAX_TOKEN_CHARS",
    "SIGNING_ALGORITHMS",
    "Claims",
    "PrivateKey",
    "ReloadableKeys",
    "decrypt",
    "encrypt",
    "identifiers",
    "is_canonical_uuid",
    "nests_too_deep",
    "parse_encrypted",
    "peek_issuer",
    "sign",
    "split_compact",
    "verify",
]
