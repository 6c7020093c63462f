"""Functions that lock, insert and change stored keys. Only this module and `provision.reseal` write keys.

Every written row gets an HMAC (`row_hmac.py`). A row that isn't authentic is changed only by a revocation.

`rotation.py`, `lifecycle.py` and `provision.py` decide which changes are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, QuerySet
from jwcrypto.jwk import JWK

from .. import trust
from ..conf import KeyEncryptionKey, conf
from ..exceptions import UnsealError
from ..logs import get_logger
from ..models import Key, KeyLock
from ..signals import KeyChange
from ..tokens import PrivateKey
from . import announcing, queries, ring, rotation, row_hmac, sealing

logger = get_logger("instaccess.keys")

_TIMES = frozenset({"created_at", "activated_at", "retired_at", "revoked_at"})


@contextmanager
def locked() -> Iterator[QuerySet[Key]]:
    """Run a transaction during which no other process can change keys, then clear this process's key cache.

    The transaction starts with an UPDATE of one row. PostgreSQL and MariaDB then lock the row until the commit.
    SQLite locks the database for writes.

    Yields:
        A queryset of the keys that reads with FOR UPDATE. In MariaDB, a plain SELECT inside a request's transaction
        would return an older snapshot.
    """
    alias = router.db_for_write(Key)
    KeyLock.objects.using(alias).get_or_create(pk=1)
    try:
        with transaction.atomic(using=alias):
            # Receivers of `key_changed` run after the commit, and must not read the old keys from the cache.
            transaction.on_commit(ring.clear_cache, using=alias)
            KeyLock.objects.using(alias).filter(pk=1).update(changes=F("changes") + 1)
            yield queries.stored_keys().select_for_update()
    finally:
        ring.clear_cache()


def store(
    key: JWK | PrivateKey,
    *,
    use: Key.Use,
    status: Key.Status,
    now: datetime,
    change: KeyChange = KeyChange.GENERATED,
) -> Key:
    """Insert a key, and return its row. If the key has a private key, the private key is sealed first.

    `change` is the change that the signal `key_changed` reports.
    """
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
    _make_storable(row, *_TIMES)
    row.mac = row_hmac.authenticate(row, conf.key_encryption_keys)
    row.save(using=router.db_for_write(Key), force_insert=True)
    logger.info(
        "key %(kid)s stored: use=%(use)s status=%(status)s private=%(private)s",
        kid=row.kid,
        use=use,
        status=status,
        private=row.has_private,
    )
    announcing.announce(row, change)
    return row


def succeed(retired: Key | None, activated: Key, now: datetime) -> None:
    """Make `activated` the current key, and make `retired` a past key unless `retired` is None.

    Raises:
        KeyAltered: a row isn't authentic.
        UnsealError: a row can't be checked.
    """
    keks = conf.key_encryption_keys
    for key in filter(None, (retired, activated)):
        row_hmac.check(key, keks)
    rotation.hand_over(retired, activated, now=now)
    if retired is not None:
        _save(retired, keks, "status", "retired_at")
        announcing.announce(retired, KeyChange.RETIRED)
    _save(activated, keks, "status", "activated_at")
    announcing.announce(activated, KeyChange.ACTIVATED)
    if retired is None:
        logger.info("key %(kid)s became current for %(use)s", kid=activated.kid, use=activated.use)
    else:
        logger.info(
            "key %(kid)s became current for %(use)s, and key %(retired)s was retired",
            kid=activated.kid,
            use=activated.use,
            retired=retired.kid,
        )


def mark_revoked(
    key: Key, now: datetime, keks: Sequence[KeyEncryptionKey], *, reason: str = "", by: Any = None
) -> None:
    """Set the status of a key to revoked, and erase its private key.

    A row that isn't authentic gets a new HMAC, and so becomes authentic as the row of a revoked key. The public key
    of such a row is kept only if the row contains the matching sealed private key, which only this package can have
    written. In all other cases, the public key is erased, so that a key that an attacker inserted can't verify
    checkpoints of the audit log.

    Args:
        keks: the key-encryption keys. If empty, the row gets no HMAC, so checks report the row until the key is
            revoked again.
        reason, by: the reason and the operator, for the signal `key_changed`.
    """
    if not queries.is_authentic(key, keks):
        key.mac, key.public_jwk = "", _public_key_of_sealed(key, keks)
    key.status, key.revoked_at, key.sealed_private_jwk = Key.Status.REVOKED, now, ""
    _save(key, keks, "status", "revoked_at", "sealed_private_jwk", "public_jwk")
    announcing.announce(key, KeyChange.REVOKED, reason=reason, by=by)


def erase(key: Key) -> None:
    """Erase the private key of a stored key permanently.

    Raises:
        KeyAltered: the row isn't authentic.
        UnsealError: the row can't be checked.
    """
    keks = conf.key_encryption_keys
    row_hmac.check(key, keks)
    key.sealed_private_jwk = ""
    _save(key, keks, "sealed_private_jwk")
    announcing.announce(key, KeyChange.ERASED)
    logger.info("private key of key %(kid)s erased", kid=key.kid)


def _public_key_of_sealed(key: Key, keks: Sequence[KeyEncryptionKey]) -> dict[str, str]:
    """Return the public JWK that matches the sealed private key of a row, or {} if the key can't be unsealed."""
    try:
        private = sealing.unseal(key.sealed_private_jwk, kid=key.kid, use=key.use, keks=keks)
    except UnsealError:
        return {}
    return trust.public_members(private, use=key.use)


def _save(key: Key, keks: Sequence[KeyEncryptionKey], *fields: str) -> None:
    """Update the named columns of a row, and its HMAC. If `keks` is empty, the row gets no HMAC."""
    _make_storable(key, *fields)
    key.mac = row_hmac.authenticate(key, keks) if keks else ""
    key.save(using=router.db_for_write(Key), update_fields=[*fields, "mac"])


def _make_storable(key: Key, *fields: str) -> None:
    """Round times to values that the database returns unchanged, because the HMAC must cover the returned values."""
    connection = connections[router.db_for_write(Key)]
    for field in _TIMES.intersection(fields):
        time: datetime | None = getattr(key, field)
        setattr(key, field, time and _storable(time, connection))


def _storable(time: datetime, connection: BaseDatabaseWrapper) -> datetime:
    # Drop the microseconds, because `dumpdata` writes only milliseconds. An HMAC that covers microseconds would not
    # match after `loaddata`.
    time = time.replace(microsecond=time.microsecond // 1000 * 1000)
    if not connection.features.supports_timezones:
        # The database stores local times in DATABASES[…]["TIME_ZONE"]. When clocks are set back, two times become the
        # same local time, and the database returns the earlier of the two.
        time = time.astimezone(connection.timezone).replace(fold=0).astimezone(UTC)
    return time
