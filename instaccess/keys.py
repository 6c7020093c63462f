"""The life of keys: made, imported. Every change happens here, under one lock, and is logged.

RSA keys are generated outside the lock; whether one is needed is decided again inside, and who loses the race changes
nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import rsa
from django.db import models, router, transaction
from django.db.models import F
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from . import keyring, sealing
from .conf import conf
from .exceptions import KeyRefused
from .models import Key, KeyLock

logger = logging.getLogger("instaccess.keys")

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 4096
MIN_EXPONENT = 65537

_INITIAL = (
    (Key.Use.SIGNING, Key.Status.CURRENT),
    (Key.Use.SIGNING, Key.Status.FUTURE),
    (Key.Use.ENCRYPTION, Key.Status.CURRENT),
)


def init(*, now: datetime | None = None) -> list[Key]:
    """Make the keys a deployment starts with, where they are missing: a current and a future signing key, a current
    encryption key with both halves. Safe to run again, and by many at once.

    Returns the keys it made; none when all were there. Raises UnsealError when a key that is there does not open
    under the configured key-encryption keys: new keys beside lost ones would hide the loss.
    """
    check_sealed_keys()
    if not missing():
        return []
    spare = {(use, status): generate_jwk(use) for use, status in missing()}
    made = []
    with locked():
        for use, status in missing():
            # A slot another init has filled meanwhile is not in missing() any more; its spare key is thrown away.
            if private := spare.get((use, status)):
                made.append(_store(private, use=use, status=status, now=now or timezone.now()))
    return made


def check_sealed_keys() -> None:
    """Open every sealed private key once. Raises UnsealError for the first that stays shut."""
    for row in _keys().exclude(sealed_private_jwk="").exclude(status=Key.Status.REVOKED):
        sealing.unseal(row.sealed_private_jwk, kid=row.kid, use=row.use, keks=conf.key_encryption_keys)


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
        use: what it is for. A key already held, for this or the other use, is refused: one key, one purpose.
        with_private: keep a private half that comes along. Without it such a key is refused, for whoever holds the
            gateway's private key can read every token.

    Raises KeyRefused, saying why.
    """
    key = _parse(data)
    if key.has_private and not with_private:
        raise KeyRefused(
            "this is a private key, and a public one is expected: whoever holds the private half can "
            + ("open" if use == Key.Use.ENCRYPTION else "forge")
            + " every token. Import the public half, or say --with-private if it must live here"
        )
    check_strength(key)
    kid = key.thumbprint()
    with locked():
        if existing := _keys().filter(kid=kid).first():
            raise KeyRefused(f"this key is already held, for use {existing.use!r}; one key has one purpose")
        return _store(key, use=use, status=status, now=now or timezone.now())


def check_strength(key: JWK) -> None:
    """Raise KeyRefused unless this is an RSA key of 2048 to 4096 bits whose exponent is 65537 or more (and odd)."""
    if key.get("kty") != "RSA":
        raise KeyRefused(f"an RSA key is needed, this is {key.get('kty')}")
    try:
        # cryptography refuses an even or too small exponent and an even modulus by itself.
        public: rsa.RSAPublicKey = key.public().get_op_key("verify")
        private = key.get_op_key("sign") if key.has_private else None
    except (JWException, TypeError, ValueError, LookupError) as error:
        raise KeyRefused(f"this is no usable RSA key ({type(error).__name__})") from None
    if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        raise KeyRefused(f"the key has {public.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")
    if public.public_numbers().e < MIN_EXPONENT:
        raise KeyRefused(f"the public exponent is below {MIN_EXPONENT}")
    if private is not None and private.public_key() != public:
        raise KeyRefused("the two halves do not belong together")


def generate_jwk(use: Key.Use) -> JWK:
    """A new RSA key pair of `KEY_SIZE` bits. Takes a moment: never call it while holding the lock."""
    return JWK.generate(kty="RSA", size=conf.key_size, use=str(use))


@contextmanager
def locked() -> Iterator[None]:
    """A transaction in which nobody else changes keys; the process's cached keys are dropped after it commits.

    The lock is an UPDATE of one row, first thing in the transaction: PostgreSQL and MariaDB hold the row until
    commit, SQLite its write lock.
    """
    alias = router.db_for_write(Key)
    KeyLock.objects.using(alias).get_or_create(pk=1)
    try:
        with transaction.atomic(using=alias):
            KeyLock.objects.using(alias).filter(pk=1).update(changes=F("changes") + 1)
            yield
    finally:
        keyring.forget()


def _keys() -> models.QuerySet[Key]:
    return Key.objects.using(router.db_for_write(Key))


def missing() -> list[tuple[Key.Use, Key.Status]]:
    """Which of the keys that a deployment starts with are not there."""
    present = set(_keys().values_list("use", "status"))
    return [slot for slot in _INITIAL if slot not in present]


@sensitive_variables()
def _store(key: JWK, *, use: Key.Use, status: Key.Status, now: datetime) -> Key:
    kid = key.thumbprint()
    members = {name: key[name] for name in ("kty", "n", "e")}
    public = {**members, "use": str(use), "kid": kid}
    sealed = ""
    if key.has_private:
        halves = {name: key[name] for name in ("d", "p", "q", "dp", "dq", "qi")}
        sealed = sealing.seal(JWK(**public, **halves), kid=kid, use=use, keks=conf.key_encryption_keys)
    row = Key(
        kid=kid,
        use=use,
        alg=conf.signing_alg if use == Key.Use.SIGNING else "",
        status=status,
        public_jwk=public,
        sealed_private_jwk=sealed,
        created_at=now,
        activated_at=now if status == Key.Status.CURRENT else None,
    )
    row.save(using=router.db_for_write(Key), force_insert=True)
    logger.info("key %s stored: use=%s status=%s private=%s", kid, use, status, row.has_private)
    return row


@sensitive_variables()
def _parse(data: str | bytes) -> JWK:
    raw = data.encode() if isinstance(data, str) else data
    try:
        if raw.lstrip().startswith(b"{"):
            members = json.loads(raw)
            if "generate" in members:
                raise KeyRefused("a JWK with a `generate` member is no key")
            key = JWK(**members)
        else:
            key = JWK.from_pem(raw.strip() + b"\n")
    except (JWException, TypeError, ValueError, LookupError, RecursionError) as error:
        raise KeyRefused(f"this is neither an unencrypted PEM key nor a JWK ({type(error).__name__})") from None
    # `use` and `key_ops` of the file are theirs; what the key is for here, the caller says.
    return JWK(**{name: value for name, value in key.items() if name not in {"use", "key_ops", "kid", "alg"}})
