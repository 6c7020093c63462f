"""The settings of keys: algorithms, key size, key-encryption keys, and the durations of the key lifecycle."""

from __future__ import annotations

import base64

from django.conf import settings

from .. import tokens
from ..opaque import concealed
from ..tokens import CLOCK_SKEW, MAX_LEEWAY, MAX_LIFETIME
from .key_encryption import KEK_BYTES, KeyEncryptionKey, derive_kek
from .values import Values

DERIVED = "SECRET_KEY"
"""The entry of KEY_ENCRYPTION_KEYS that represents the keys derived from SECRET_KEY and SECRET_KEY_FALLBACKS."""

_KEK_FORMAT = (
    "a list of base64url strings, each of 32 random bytes; generate a string with "
    '`python -c "import secrets; print(secrets.token_urlsafe(32))"`'
)


class KeySettings(Values):
    """The part of the INSTACCESS settings that concerns keys."""

    @property
    def encryption_alg(self) -> str:
        """The JWE `alg` of issued tokens."""
        return self._choice("ENCRYPTION_ALG", "RSA-OAEP", tokens.KEY_ALGORITHMS + tokens.LEGACY_KEY_ALGORITHMS)

    @property
    def key_algorithms(self) -> tuple[str, ...]:
        """The JWE `alg` values that a gateway accepts. This property isn't a setting.

        RSA1_5 is accepted only if ENCRYPTION_ALG is RSA1_5.
        """
        alg = self.encryption_alg
        return (*tokens.KEY_ALGORITHMS, alg) if alg in tokens.LEGACY_KEY_ALGORITHMS else tokens.KEY_ALGORITHMS

    @property
    def content_encryption(self) -> str:
        """The JWE `enc` of issued tokens."""
        return self._choice("CONTENT_ENCRYPTION", "A128CBC-HS256", tokens.CONTENT_ALGORITHMS)

    @property
    def signing_alg(self) -> str:
        """The JWS `alg` of issued tokens."""
        return self._choice("SIGNING_ALG", "RS256", tokens.SIGNING_ALGORITHMS)

    @property
    def key_size(self) -> int:
        """The size of a generated RSA key, in bits."""
        return self._choice("KEY_SIZE", 2048, (2048, 3072, 4096))

    @property
    @concealed
    def key_encryption_keys(self) -> list[KeyEncryptionKey]:
        """The key-encryption keys. These keys seal private keys, that is, encrypt private keys at rest.

        The first key-encryption key seals new private keys. The other key-encryption keys unseal older private keys.
        By default, the key-encryption keys are derived from SECRET_KEY and SECRET_KEY_FALLBACKS with HKDF-SHA256 (RFC
        5869). The entry "SECRET_KEY" represents the derived keys, so that a deployment can replace the derived keys
        step by step.
        """
        value = self._get("KEY_ENCRYPTION_KEYS", [DERIVED])
        if not isinstance(value, (list, tuple)) or not value:
            raise self._invalid("KEY_ENCRYPTION_KEYS", _KEK_FORMAT)
        keys: list[KeyEncryptionKey] = []
        for item in value:
            if item == DERIVED:
                keys += map(derive_kek, (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))
            else:
                keys.append(self._decode_kek(item))
        return keys

    @property
    def key_encryption_keys_are_derived(self) -> bool:
        """Whether private keys are sealed with a key derived from SECRET_KEY. This property isn't a setting."""
        value = self._get("KEY_ENCRYPTION_KEYS", [DERIVED])
        return isinstance(value, (list, tuple)) and value[:1] in ([DERIVED], (DERIVED,))

    @property
    def key_cache_seconds(self) -> int:
        """The time, in seconds, for which a process caches keys.

        The maximum is 5, because a revocation must take effect within 5 seconds.
        """
        return self._integer("KEY_CACHE_SECONDS", 3, 0, 5)

    @property
    def key_rotation_days(self) -> int:
        """The time, in days, for which a key stays current before `instaccess_keys rotate` replaces the key."""
        days = self._integer("KEY_ROTATION_DAYS", 30, 1, 3650)
        if days * 86400 <= self.key_lead_seconds:
            raise self._invalid("KEY_ROTATION_DAYS", f"longer than KEY_LEAD_SECONDS ({self.key_lead_seconds} s)")
        return days

    @property
    def key_lead_seconds(self) -> int:
        """The minimum time, in seconds, from the generation of a key until a rotation makes the key current.

        The smallest accepted value is JWKS_MAX_AGE + KEY_CACHE_SECONDS, because every copy of the JWKS contains the
        key after this time.
        """
        minimum = self.jwks_max_age + self.key_cache_seconds
        return self._at_least("KEY_LEAD_SECONDS", minimum, "JWKS_MAX_AGE + KEY_CACHE_SECONDS")

    @property
    def key_retention_seconds(self) -> int:
        """The time, in seconds, for which a retired key stays valid.

        The minimum is the time after which every token of the key has expired. A lifetime of one hour is assumed,
        because LIFETIME may have been longer when the tokens were issued.
        """
        minimum = MAX_LIFETIME + CLOCK_SKEW + self.leeway + self.key_cache_seconds
        return self._at_least(
            "KEY_RETENTION_SECONDS",
            minimum,
            "an hour of lifetime + a minute of clock skew + LEEWAY + KEY_CACHE_SECONDS",
        )

    @property
    def jwks_max_age(self) -> int:
        """The time, in seconds, for which clients may cache the published JWKS (`Cache-Control: max-age`)."""
        return self._integer("JWKS_MAX_AGE", 300, 0, 86_400)

    @property
    def leeway(self) -> int:
        """The time, in seconds past `exp`, for which a token is still accepted."""
        return self._integer("LEEWAY", 0, 0, MAX_LEEWAY)

    def _decode_kek(self, item: object) -> KeyEncryptionKey:
        """Decode a key-encryption key from base64url. The error never contains the string."""
        if not isinstance(item, str):
            raise self._invalid("KEY_ENCRYPTION_KEYS", _KEK_FORMAT)
        try:
            key = base64.b64decode(item + "=" * (-len(item) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise self._invalid("KEY_ENCRYPTION_KEYS", _KEK_FORMAT) from None
        if len(key) != KEK_BYTES:
            raise self._invalid("KEY_ENCRYPTION_KEYS", _KEK_FORMAT)
        return KeyEncryptionKey(key)
