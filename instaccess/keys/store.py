"""The rows of keys: found, locked, stored, changed. What is to happen with them is decided in `keys.py` and
`lifecycle.py`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import router, transaction
from django.db.models import F, QuerySet
from django.views.decorators.debug import sensitive_variables
from jwcrypto.jwk import JWK

from .. import trust
from ..conf import conf
from ..exceptions import KeyUnavailable
from ..models import Key, KeyLock
from . import ring, rotation, sealing

logger = logging.getLogger("instaccess.keys")

SHORTEST_KID = 6
"""So many characters of a kid name a key, where no other begins so."""


def stored_keys() -> QuerySet[Key]:
    """All keys, from the database they are written to."""
    return Key.objects.using(router.db_for_write(Key))


@contextmanager
def locked() -> Iterator[QuerySet[Key]]:
    """A transaction in which nobody else changes keys; the process's cached keys are dropped when it ends.

    The lock is an UPDATE of one row, first thing in the transaction: PostgreSQL and MariaDB hold the row until
    commit, SQLite its write lock. Yields the keys as they are under it: read with FOR UPDATE, because inside a
    request's transaction a plain SELECT would show MariaDB's older snapshot.
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
    """The current key of a use."""
    return keys.filter(use=use, status=Key.Status.CURRENT).first()


def future_keys(keys: QuerySet[Key], use: Key.Use) -> QuerySet[Key]:
    """The future keys of a use, the one that has waited longest first."""
    return keys.filter(use=use, status=Key.Status.FUTURE).order_by("created_at", "id")


def next_key(keys: QuerySet[Key], use: Key.Use, *, previous_has_private: bool) -> Key | None:
    """The key of a use that has waited longest, of those that take over by themselves: see `rotation.can_follow`."""
    return next(
        (
            key
            for key in future_keys(keys, use)
            if rotation.can_rotate_automatically(key, previous_has_private=previous_has_private)
        ),
        None,
    )


def find_key(kid: str, keys: QuerySet[Key] | None = None) -> Key:
    """The key with this kid, or whose kid begins so (6 characters or more). Raises KeyUnavailable."""
    # SQLite and MariaDB compare without case here; there are few keys, so Python compares.
    found = [
        key
        for key in (stored_keys() if keys is None else keys)
        if key.kid == kid or (len(kid) >= SHORTEST_KID and key.kid.startswith(kid))
    ]
    if not found and len(kid) < SHORTEST_KID:
        raise KeyUnavailable(
            f"there is no key {kid!r}: give its id, or at least the first {SHORTEST_KID} characters of it, as "
            "`python manage.py instaccess_keys list` shows them"
        )
    if len(found) != 1:
        what = "more than one key" if found else "no key"
        raise KeyUnavailable(f"there is {what} {kid!r}: see `python manage.py instaccess_keys list`")
    return found[0]


@sensitive_variables()
def store(key: JWK, *, use: Key.Use, status: Key.Status, now: datetime) -> Key:
    """A new row, its private half sealed."""
    public = trust.public_members(key, use=use)
    sealed = ""
    if key.has_private:
        private = trust.private_jwk(key, use=use)
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
    """Make one key current and the one before it past."""
    if retired is not None:
        retired.status, retired.retired_at = Key.Status.PAST, now
        save(retired, "status", "retired_at")
    activated.status, activated.activated_at = Key.Status.CURRENT, now
    save(activated, "status", "activated_at")
    logger.info("key %s is current for %s, after %s", activated.kid, activated.use, getattr(retired, "kid", None))


def mark_revoked(key: Key, now: datetime) -> None:
    """Give a key the status revoked and erase its private key."""
    key.status, key.revoked_at, key.sealed_private_jwk = Key.Status.REVOKED, now, ""
    save(key, "status", "revoked_at", "sealed_private_jwk")


def erase(key: Key) -> None:
    """Forget the private half for good."""
    key.sealed_private_jwk = ""
    save(key, "sealed_private_jwk")
    logger.info("private half of key %s erased", key.kid)


def save(key: Key, *fields: str) -> None:
    """Write the named columns of a row."""
    key.save(using=router.db_for_write(Key), update_fields=fields)
