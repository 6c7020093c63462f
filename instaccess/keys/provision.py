"""Generation, import, export and resealing of keys. `lifecycle.py` rotates, activates and revokes keys."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from .. import trust
from ..conf import conf, kek_id
from ..exceptions import KeyRefused, KeyUnavailable, UnsealError
from ..logs import get_logger
from ..models import Key
from ..opaque import Opaque
from ..signals import KeyChange
from . import announcing, queries, ring, row_hmac, sealing, store
from .held_keys import public_key

logger = get_logger("instaccess.keys")

INITIAL = (
    (Key.Use.SIGNING, Key.Status.CURRENT),
    (Key.Use.SIGNING, Key.Status.FUTURE),
    (Key.Use.ENCRYPTION, Key.Status.CURRENT),
)

_RESEAL_ATTEMPTS = 10


def init(*, now: datetime | None = None) -> list[Key]:
    """Generate the missing keys of a new deployment: current and future signing keys, and a current encryption key.

    Calling this function again, or in several processes at the same time, is safe.

    Returns:
        The generated keys; an empty list if no key was missing.

    Raises:
        KeyAltered: the row of a key was modified. No key is generated before the operator has revoked this key.
        UnsealError: a stored key can't be unsealed with the configured key-encryption keys. No key is generated,
            because new keys would hide the loss of a key-encryption key.
        KeyUnavailable: there are encryption keys, but no encryption key is current. No key is generated, because the
            private keys may belong to a gateway, which could not decrypt tokens that are encrypted for a new key.
    """
    check_sealed_keys()
    if (
        queries.stored_keys().filter(use=Key.Use.ENCRYPTION).exists()
        and (Key.Use.ENCRYPTION, Key.Status.CURRENT) in missing_keys()
    ):
        raise KeyUnavailable(
            "no encryption key is current: import the gateway's public key or generate a key with "
            "`python manage.py instaccess_keys`, then activate the key"
        )
    pregenerated = {(use, status): trust.generate_key(use) for use, status in missing_keys()}
    if not pregenerated:
        return []
    generated = []
    with store.locked():
        # Check again which keys are missing, because another process may have stored a key in the meantime.
        for use, status in missing_keys():
            if private := pregenerated.get((use, status)):
                generated.append(store.store(private, use=use, status=status, now=now or ring.current_time()))
    return generated


def missing_keys() -> list[tuple[Key.Use, Key.Status]]:
    """Return the pairs of `INITIAL` (`use` and status) for which no key is stored."""
    present = set(queries.stored_keys().values_list("use", "status"))
    return [slot for slot in INITIAL if slot not in present]


def check_sealed_keys() -> None:
    """Check the HMAC of every row, and unseal every private key as a test.

    Raises KeyAltered or UnsealError for the first key that can't be used.
    """
    rows, errors = queries.examine()
    for error in errors.values():
        raise error
    for unseal_error in undecryptable(row for row in rows if row.status != Key.Status.REVOKED).values():
        raise unseal_error


def undecryptable(rows: Iterable[Key]) -> dict[str, UnsealError]:
    """Unseal the private keys of rows, and return a mapping from kid to error for the failures.

    Unsealing takes about a millisecond per key.
    """
    errors = {}
    for row in rows:
        try:
            if row.has_private:
                sealing.unseal(row.sealed_private_jwk, kid=row.kid, use=row.use, keks=conf.key_encryption_keys)
        except UnsealError as error:
            errors[row.kid] = error
    return errors


def generate(use: Key.Use, *, now: datetime | None = None) -> Key:
    """Generate and store a future key, and return its row."""
    private = trust.generate_key(use)
    with store.locked():
        return store.store(private, use=use, status=Key.Status.FUTURE, now=now or ring.current_time())


def import_key(
    data: Opaque[bytes],
    *,
    use: Key.Use,
    status: Key.Status = Key.Status.FUTURE,
    with_private: bool = False,
    now: datetime | None = None,
) -> Key:
    """Store a key that another program generated, and return the row of the key.

    Args:
        data: the public or private key, as PEM (PKCS#8, SubjectPublicKeyInfo or certificate) or as one JWK in JSON.
        use: whether the key is for signing or for encryption. After the import, a signing key is published, and
            tokens that are signed with the key are accepted.
        status: the status of the imported key.
        with_private: whether to accept a private key. By default, private keys are refused, because an issuer doesn't
            need the gateway's private key, and an attacker with this key can read every token.

    Raises:
        KeyRefused: the key is unsuitable, or is already stored as a signing or encryption key.
    """
    key = trust.parse_key(data)
    if key.has_private and not with_private:
        raise KeyRefused(
            "this is a private key, but a public key is expected: an attacker with the private key can "
            + ("decrypt" if use == Key.Use.ENCRYPTION else "forge")
            + " every token. Import the public key. If this server needs the private key, add --with-private"
        )
    with store.locked() as keys:
        existing = next(iter(row_hmac.load(keys.filter(kid=key.thumbprint()))[0]), None)
        if existing is not None:
            raise KeyRefused(_describe_duplicate(existing, use, with_private=key.has_private))
        return store.store(key, use=use, status=status, now=now or ring.current_time(), change=KeyChange.IMPORTED)


def _describe_duplicate(existing: Key, use: Key.Use, *, with_private: bool) -> str:
    text = f"this key is already stored for use {str(existing.use)!r}"
    if existing.use != use:
        return f"{text}; import a different key, because a key must have only one use"
    text += f" ({existing.status})"
    if with_private and not existing.has_private:
        return (
            f"{text}. The private key can't be added to the stored public key: generate a new key pair, and import "
            "the new key pair"
        )
    return text


def export(row: Key, *, file_format: str) -> str:
    """Return a public key as PEM or JWK.

    Args:
        file_format: `pem` or `jwk`.

    Raises:
        KeyAltered: the row was modified.
        UnsealError: the row can't be checked.
    """
    row_hmac.check(row, conf.key_encryption_keys)
    return trust.key_to_text(public_key(row), file_format=file_format)


def export_private(row: Key, *, file_format: str) -> Opaque[str]:
    """Return a private key, unencrypted, as PEM or JWK.

    Args:
        file_format: `pem` or `jwk`.

    Raises:
        KeyAltered: the row was modified.
        KeyUnavailable: the private key is not stored on this server.
        UnsealError: the row can't be checked, or the private key can't be unsealed.
    """
    row_hmac.check(row, conf.key_encryption_keys)
    if not row.has_private:
        raise KeyUnavailable(
            f"only the public key of key {row.kid} is stored on this server: export the private key on the server "
            "that stores the private key"
        )
    key = sealing.unseal(row.sealed_private_jwk, kid=row.kid, use=row.use, keks=conf.key_encryption_keys)
    logger.warning("private key of key %(kid)s exported", kid=row.kid)
    return trust.private_to_text(key, file_format=file_format)


def reseal() -> int:
    """Use the first key-encryption key for all rows: encrypt each private key again, and compute each HMAC again.

    The operator can interrupt the command and run the command again, because each row is updated in one statement. At
    any time, a configured key-encryption key can unseal the private key of the row.

    A row that isn't authentic gets no new HMAC, because a new HMAC would hide that the row was modified. If a row
    can't be resealed, all other rows are resealed before the error is raised.

    Returns:
        The number of resealed private keys, without keys that were already sealed with the first key-encryption key.

    Raises:
        KeyAltered: a row was modified.
        UnsealError: a row can't be checked, or a private key can't be unsealed.
        KeyUnavailable: other processes changed a row repeatedly.
    """
    rows, errors = queries.examine()
    failures, resealed = list(errors.values()), 0
    for row in rows:
        if row.pk not in errors:
            try:
                resealed += _reseal_row(row.pk)
            except KeyUnavailable as error:
                failures.append(error)
    for failure in failures:
        logger.error("a key could not be resealed: %(detail)s", reason=failure.code, detail=str(failure))
    if failures:
        raise failures[0]
    return resealed


def _reseal_row(pk: int) -> bool:
    """Encrypt the private key of a row with the first key-encryption key, and compute the HMAC of the row.

    The row is updated in one statement, and only if no other process has changed the row in the meantime. If another
    process has changed the row, this function reads the row and tries again.

    Returns whether the private key was encrypted. Returns False if the private key was already encrypted with the
    first key-encryption key.

    Raises KeyAltered or UnsealError if the row isn't authentic or the private key can't be unsealed, and
    KeyUnavailable if other processes change the row repeatedly.
    """
    keks = conf.key_encryption_keys
    for _ in range(_RESEAL_ATTEMPTS):
        row = queries.stored_keys().filter(pk=pk).first()
        if row is None:
            return False
        row_hmac.check(row, keks)
        old_mac, old_sealed = row.mac, row.sealed_private_jwk
        if row.has_private and sealing.sealed_under(old_sealed) != kek_id(keks[0]):
            private = sealing.unseal(old_sealed, kid=row.kid, use=row.use, keks=keks)
            row.sealed_private_jwk = sealing.seal(private, kid=row.kid, use=row.use, keks=keks)
        row.mac = row_hmac.authenticate(row, keks[:1])
        if (row.mac, row.sealed_private_jwk) == (old_mac, old_sealed):
            return False
        unchanged = queries.stored_keys().filter(pk=pk, mac=old_mac, sealed_private_jwk=old_sealed)
        if unchanged.update(mac=row.mac, sealed_private_jwk=row.sealed_private_jwk):
            announcing.announce(row, KeyChange.RESEALED)
            return row.sealed_private_jwk != old_sealed
    raise KeyUnavailable("other processes are changing keys: run `python manage.py instaccess_keys reseal` again")
