"""The stored keys: functions that find, lock, insert and change keys.

`rotation.py`, `lifecycle.py` and `provision.py` decide which changes are made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import router, transaction
from django.db.models import F, QuerySet
from jwcrypto.jwk import JWK

from .. import trust
from ..conf import conf
from ..exceptions import KeyUnavailable
from ..models import Key, KeyLock
from ..tokens import PrivateKey
from . import ring, rotation, sealing

logger = logging.getLogger("instaccess.keys")

SHORTEST_KID = 6
"""The minimum length of an abbreviated kid."""


def stored_keys() -> QuerySet[Key]:
    """Return all keys from the database that keys are written to, because a replica may be outdated."""
    return Key.objects.using(router.db_for_write(Key))


@contextmanager
def locked() -> Iterator[QuerySet[Key]]:
    """Run a transaction during which no other process can change keys, then clear this process's key cache.

    The lock is an UPDATE of one row at the start of the transaction. PostgreSQL and MariaDB lock the row until
    commit; SQLite locks the database for writes.

    Yields:
        A queryset of the keys that reads with FOR UPDATE. In MariaDB, a plain SELECT inside a request's transaction
        would return an older snapshot.
    """
    alias = router.db_for_write(Key)
    KeyLock.objects.using(alias).get_or_create(pk=1)
    try:
        with transaction.atomic(using=alias):
            KeyLock.objects.using(alias).filter(pk=1).update(changes=F("changes") + 1)
            yield stored_keys().select_for_update()
    finally:
        ring.clear_cache()


def current_key(keys: QuerySet[Key], use: Key.Use) -> Key | None:
    """Return the current signing or encryption key, or None."""
    return keys.filter(use=use, status=Key.Status.CURRENT).first()


def future_keys(keys: QuerySet[Key], use: Key.Use) -> QuerySet[Key]:
    """Return the future signing or encryption keys, the oldest first."""
    return keys.filter(use=use, status=Key.Status.FUTURE).order_by("created_at", "id")


def next_key(keys: QuerySet[Key], use: Key.Use, *, previous_has_private: bool) -> Key | None:
    """Return the oldest future key that can become current automatically (`rotation.can_rotate_automatically`)."""
    return next(
        (
            key
            for key in future_keys(keys, use)
            if rotation.can_rotate_automatically(key, previous_has_private=previous_has_private)
        ),
        None,
    )


def find_key(kid: str, keys: QuerySet[Key] | None = None) -> Key:
    """Return the key with this kid.

    Args:
        kid: the whole kid, or at least its first 6 characters.

    Raises:
        KeyUnavailable: no key or more than one key matches.
    """
    # The kids are compared in Python, because SQLite and MariaDB may ignore case. There are few keys.
    matches = [
        key
        for key in (stored_keys() if keys is None else keys)
        if key.kid == kid or (len(kid) >= SHORTEST_KID and key.kid.startswith(kid))
    ]
    if not matches and len(kid) < SHORTEST_KID:
        raise KeyUnavailable(
            f"there is no key {kid!r}: give the key id or at least its first {SHORTEST_KID} characters. "
            "`python manage.py instaccess_keys list` shows the ids"
        )
    if len(matches) != 1:
        quantity = "more than one key" if matches else "no key"
        raise KeyUnavailable(f"there is {quantity} {kid!r}: see `python manage.py instaccess_keys list`")
    return matches[0]


def store(key: JWK | PrivateKey, *, use: Key.Use, status: Key.Status, now: datetime) -> Key:
    """Insert a key, and return its row. A private key is sealed first."""
    public = trust.public_members(key, use=use)
    sealed = ""
    if isinstance(key, PrivateKey):
        private = trust.for_use(key, use=use)
        sealed = sealing.seal(private, kid=public["kid"], use=use, keks=conf.key_encryption_keys)
    row = Key(
        kid=public["kid"],
        use=use,
        alg=conf.signing_alg if use == Key.Use.SIGNING else "",
        status=status,
        public_jwk=public,
        sealed_private_jwk=sealed,
        created_at=now,
        activated_at=now if status == Key.Status.CURRENT else None,
    )
    row.save(using=router.db_for_write(Key), force_insert=True)
    logger.info("key %s stored: use=%s status=%s private=%s", row.kid, use, status, row.has_private)
    return row


def succeed(retired: Key | None, activated: Key, now: datetime) -> None:
    """Make `activated` the current key, and `retired`, if given, a past key."""
    rotation.hand_over(retired, activated, now=now)
    if retired is not None:
        save(retired, "status", "retired_at")
    save(activated, "status", "activated_at")
    logger.info("key %s is current for %s, after %s", activated.kid, activated.use, getattr(retired, "kid", None))


def mark_revoked(key: Key, now: datetime) -> None:
    """Set the status of a key to revoked, and erase its private key."""
    key.status, key.revoked_at, key.sealed_private_jwk = Key.Status.REVOKED, now, ""
    save(key, "status", "revoked_at", "sealed_private_jwk")


def erase(key: Key) -> None:
    """Erase the private key of a stored key. This can't be undone."""
    key.sealed_private_jwk = ""
    save(key, "sealed_private_jwk")
    logger.info("private key of key %s erased", key.kid)


def save(key: Key, *fields: str) -> None:
    """Update the named columns of a row."""
    key.save(using=router.db_for_write(Key), update_fields=fields)
