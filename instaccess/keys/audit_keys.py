"""The signing keys and key-encryption keys that the functions of the `audit` package get as arguments."""

from __future__ import annotations

from .. import audit, tokens
from ..conf import KeyEncryptionKey, conf
from ..exceptions import ConfigError
from ..logs import get_logger
from ..models import Key
from . import queries, ring
from .held_keys import public_key

logger = get_logger("instaccess.keys")


def evidence_keys() -> audit.EvidenceKeys:
    """Load the keys that sign, authenticate and check the tamper evidence of the audit log.

    A signing key whose row was modified in the database is logged and left out. If the current signing key is
    missing or can't be unsealed, this function raises no error, because checking the audit log needs only public
    keys. The function `sign` in the result then raises KeyUnavailable or UnsealError.

    Raises ConfigError or DatabaseError.
    """
    current_ring = ring.current_ring()
    verification = {}
    for row in queries.authentic_keys(queries.stored_keys().filter(use=Key.Use.SIGNING)):
        # Leave out revoked keys without a public key. A revocation erases the public key if the row was not
        # authentic.
        if row.public_jwk or row.status != Key.Status.REVOKED:
            verification[row.kid] = public_key(row)

    def sign(payload: bytes, typ: str) -> str:
        key = current_ring.signing_key()
        return tokens.sign(payload, key.private(), kid=key.kid, typ=typ)

    return audit.EvidenceKeys(conf.key_encryption_keys, verification, sign)


def keks_for_revocation() -> list[KeyEncryptionKey]:
    """Return the key-encryption keys, or an empty list if the settings are invalid.

    An empty list allows a revocation despite the invalid settings. The rows of the revoked keys and tokens then get
    no new HMAC, and `instaccess_tokens verify` reports these rows.
    """
    try:
        return conf.key_encryption_keys
    except ConfigError as error:
        logger.error(
            "the rows of revoked keys and tokens get no new HMAC, because a setting is invalid: %(detail)s",
            reason=error.code,
            detail=str(error),
        )
        return []
