"""Generation, selection and checks of the key that replaces the current key."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from .. import trust
from ..conf import conf
from ..exceptions import ConfigError, InstAccessError, KeyRefused, KeyUnavailable, Reason, UnsealError
from ..logs import get_logger
from ..models import Key
from ..tokens import PrivateKey
from . import queries, rotation, row_hmac, sealing, store

logger = get_logger("instaccess.keys")


def pregenerate_keys(key: Key) -> tuple[list[PrivateKey], str]:
    """Generate the keys that may be needed after this key is revoked.

    A failure raises no error, because a failure must not prevent the revocation.

    Returns the keys, and the reason why generation failed, or "" if generation succeeded.
    """
    if not key.has_private or key.status not in {Key.Status.CURRENT, Key.Status.FUTURE}:
        return [], ""
    try:
        return [trust.generate_key(key.use), trust.generate_key(key.use)], ""
    except InstAccessError as error:
        return [], error.detail


def activate_successor(
    keys: QuerySet[Key], use: Key.Use, pregenerated: list[PrivateKey], *, now: datetime, previous_has_private: bool
) -> Key | None:
    """Make the next usable future key current, or a pregenerated key if there is no such future key.

    Args:
        pregenerated: pregenerated private keys. A key that is used is removed from the list.
        previous_has_private: whether the private key of the previous current key was stored on this server.

    Returns the new current key, or None if there is neither a usable future key nor a pregenerated key.
    """
    successor = _usable_future(keys, use, previous_has_private=previous_has_private)
    if successor is None and pregenerated:
        successor = store.store(pregenerated.pop(), use=use, status=Key.Status.FUTURE, now=now)
    if successor is not None:
        store.succeed(None, successor, now)
    return successor


def ensure_next_key(
    keys: QuerySet[Key], use: Key.Use, pregenerated: list[PrivateKey], *, now: datetime
) -> Key | None:
    """Store a pregenerated key as a future key, unless there is a future key that may become current automatically.

    Returns the stored key, or None if no key was stored.
    """
    if pregenerated and queries.next_key(keys, use, previous_has_private=True) is None:
        return store.store(pregenerated.pop(), use=use, status=Key.Status.FUTURE, now=now)
    return None


def check_usable(key: Key) -> None:
    """Check that a key can become current.

    The row must be authentic. A signing key must have a private key. If the private key is stored, unsealing must
    succeed.

    Raises:
        KeyAltered: the row was modified.
        KeyRefused: the key is a signing key without a private key.
        UnsealError: the row can't be checked, or the private key can't be unsealed.
    """
    row_hmac.check(key, conf.key_encryption_keys)
    if key.has_private:
        sealing.unseal(key.sealed_private_jwk, kid=key.kid, use=key.use, keks=conf.key_encryption_keys)
    elif key.use == Key.Use.SIGNING:
        raise KeyRefused(f"key {key.kid} can't sign: only its public key is stored on this server")


def check_key_encryption_key(key: Key) -> None:
    """Check that the row of a key is authentic, and that its key-encryption key is configured.

    A rotation may replace a key whose sealed private key was modified. Such a key therefore causes no error, unless
    the modified text contains the id of a key-encryption key that is not configured.

    Raises:
        KeyAltered: the row was modified.
        KeyRefused: the key is a signing key without a private key.
        UnsealError: the key-encryption key of the HMAC or of the private key is not configured.
    """
    try:
        check_usable(key)
    except UnsealError as error:
        if error.code == Reason.KEK_MISSING:
            raise


def _usable_future(keys: QuerySet[Key], use: Key.Use, *, previous_has_private: bool) -> Key | None:
    for key in queries.future_keys(keys, use):
        if not rotation.can_rotate_automatically(key, previous_has_private=previous_has_private):
            if key.use == Key.Use.SIGNING:
                logger.warning(
                    "future signing key %(kid)s was skipped, because its private key is not stored on this server",
                    kid=key.kid,
                )
            else:
                logger.warning(
                    "future encryption key %(kid)s was skipped, because the gateway may lack its private key",
                    kid=key.kid,
                )
            continue
        try:
            check_usable(key)
        except (ConfigError, KeyRefused, KeyUnavailable) as error:
            logger.error("a future key was skipped: %(detail)s", kid=key.kid, reason=error.code, detail=str(error))
        else:
            return key
    return None
