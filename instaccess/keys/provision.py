"""Keys made, imported, exported, sealed anew. How one follows another stands in `lifecycle.py`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from .. import trust
from ..conf import conf, kek_id
from ..exceptions import KeyRefused, KeyUnavailable, UnsealError
from ..models import Key
from . import ring, sealing, store

logger = logging.getLogger("instaccess.keys")

INITIAL = (
    (Key.Use.SIGNING, Key.Status.CURRENT),
    (Key.Use.SIGNING, Key.Status.FUTURE),
    (Key.Use.ENCRYPTION, Key.Status.CURRENT),
)


def init(*, now: datetime | None = None) -> list[Key]:
    """Make the keys a deployment starts with, where they are missing: a current and a future signing key, and a
    current encryption key with both halves. Safe to run again, and by many at once.

    Returns the keys it made; none when all were there. Raises UnsealError when a key that is there does not open
    under the configured key-encryption keys: new keys beside lost ones would hide the loss. Raises KeyUnavailable
    when there were encryption keys and none is current: their private half may be a gateway's, which could not open
    what is encrypted under a new key of ours.
    """
    check_sealed_keys()
    if (
        store.stored_keys().filter(use=Key.Use.ENCRYPTION).exists()
        and (Key.Use.ENCRYPTION, Key.Status.CURRENT) in missing_keys()
    ):
        raise KeyUnavailable(
            "there are encryption keys, and none is current: import the gateway's public key, or generate one here, "
            "with `python manage.py instaccess_keys`, and activate it"
        )
    spare = {(use, status): trust.generate_jwk(use) for use, status in missing_keys()}
    if not spare:
        return []
    made = []
    with store.locked():
        # What another init has filled in meanwhile is not missing any more; its spare key is thrown away.
        for use, status in missing_keys():
            if private := spare.get((use, status)):
                made.append(store.store(private, use=use, status=status, now=now or timezone.now()))
    return made


def missing_keys() -> list[tuple[Key.Use, Key.Status]]:
    """Which of the keys that a deployment starts with are not there."""
    present = set(store.stored_keys().values_list("use", "status"))
    return [slot for slot in INITIAL if slot not in present]


def check_sealed_keys() -> None:
    """Open every sealed private key once. Raises UnsealError for the first that stays shut."""
    for error in undecryptable(store.stored_keys().exclude(status=Key.Status.REVOKED)).values():
        raise error


def undecryptable(among: Iterable[Key]) -> dict[str, UnsealError]:
    """Why, by kid, which of the sealed private keys among these stay shut. About a millisecond a key."""
    errors = {}
    for row in among:
        try:
            if row.has_private:
                sealing.unseal(row.sealed_private_jwk, kid=row.kid, use=row.use, keks=conf.key_encryption_keys)
        except UnsealError as error:
            errors[row.kid] = error
    return errors


def generate(use: Key.Use, *, now: datetime | None = None) -> Key:
    """A new future key, both halves."""
    private = trust.generate_jwk(use)
    with store.locked():
        return store.store(private, use=use, status=Key.Status.FUTURE, now=now or timezone.now())


@sensitive_variables()
def import_key(
    data: str | bytes,
    *,
    use: Key.Use,
    status: Key.Status = Key.Status.FUTURE,
    with_private: bool = False,
    now: datetime | None = None,
) -> Key:
    """Take in a key made elsewhere.

    Args:
        data: PEM (PKCS#8, SubjectPublicKeyInfo or certificate) or one JWK as JSON; the public half or both.
        use: what it is for. A key already held, for this or the other use, is refused: one key, one purpose. A
            signing key is published, and tokens signed with it are accepted, from now on.
        with_private: keep a private half that comes along. Without it such a key is refused, for whoever holds the
            gateway's private key can read every token.

    Raises KeyRefused, saying why.
    """
    key = trust.parse_key(data)
    if key.has_private and not with_private:
        raise KeyRefused(
            "this is a private key, and a public one is expected: whoever holds the private half can "
            + ("open" if use == Key.Use.ENCRYPTION else "forge")
            + " every token. Import the public half, or, if the private one must live here, say so (--with-private)"
        )
    with store.locked() as held:
        if existing := held.filter(kid=key.thumbprint()).first():
            raise KeyRefused(_why_not_again(existing, use, with_private=key.has_private))
        return store.store(key, use=use, status=status, now=now or timezone.now())


def _why_not_again(existing: Key, use: Key.Use, *, with_private: bool) -> str:
    held = f"this key is already held, for use {str(existing.use)!r}"
    if existing.use != use:
        return f"{held}; one key has one purpose"
    held += f" ({existing.status})"
    if with_private and not existing.has_private:
        return f"{held} without its private half, which can't be added later: make a new pair, and import that"
    return held


@sensitive_variables()
def export(row: Key, *, file_format: str, private: bool = False) -> str:
    """A key as PEM or JWK. Raises KeyUnavailable where the private half is asked for and not held, or stays shut."""
    if not private:
        return trust.key_to_text(ring.public_key(row), file_format=file_format, private=False)
    if not row.has_private:
        raise KeyUnavailable(f"only the public half of key {row.kid} is held here")
    key = sealing.unseal(row.sealed_private_jwk, kid=row.kid, use=row.use, keks=conf.key_encryption_keys)
    logger.warning("private half of key %s exported", row.kid)
    return trust.key_to_text(key, file_format=file_format, private=True)


def reseal() -> int:
    """Seal every private key under the first key-encryption key; returns how many were under another.

    Row by row, each in one statement and only if nobody changed it meanwhile: it can be killed at any moment and run
    again, and while it runs every row opens under one of the configured keys. One that stays shut does not keep the
    others from being resealed; its UnsealError is raised at the end.
    """
    keks = conf.key_encryption_keys
    wanted, resealed, failure = kek_id(keks[0]), 0, None
    for row in store.stored_keys().exclude(sealed_private_jwk=""):
        if sealing.sealed_under(row.sealed_private_jwk) == wanted:
            continue
        try:
            private = sealing.unseal(row.sealed_private_jwk, kid=row.kid, use=row.use, keks=keks)
        except UnsealError as error:
            logger.error("not resealed: %s", error)
            failure = failure or error
            continue
        sealed = sealing.seal(private, kid=row.kid, use=row.use, keks=keks)
        unchanged = store.stored_keys().filter(pk=row.pk, sealed_private_jwk=row.sealed_private_jwk)
        resealed += unchanged.update(sealed_private_jwk=sealed)
    if failure is not None:
        raise failure
    return resealed
