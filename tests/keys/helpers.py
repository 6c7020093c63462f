"""Functions that build rows of keys, read the stored keys and check whether a token is accepted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from instaccess.exceptions import InvalidToken
from instaccess.keys import ring as keys_ring
from instaccess.keys import rotation
from instaccess.models import Key
from instaccess.tokens import jose
from instaccess.trust import material

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
TIMES = rotation.Times(interval=30 * DAY, lead=timedelta(seconds=303), retention=timedelta(seconds=3663))
BOTH_USES = pytest.mark.parametrize("use", [SIG, ENC])


def key(status: str, *, use: Key.Use = SIG, created: datetime = START, private: bool = True, **columns: Any) -> Key:
    """Return an unsaved key row for the functions of `rotation`, which need no database."""
    return Key(
        kid=f"{use}-{status}-{created:%d%H%M%S}",
        use=use,
        status=status,
        created_at=created,
        sealed_private_jwk="sealed" if private else "",
        **columns,
    )


def current_key(since: datetime = START, **columns: Any) -> Key:
    return key("current", created=since, activated_at=since, **columns)


def past_key(retired: datetime, **columns: Any) -> Key:
    return key("past", created=retired - 30 * DAY, activated_at=retired - 30 * DAY, retired_at=retired, **columns)


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)


def kids(use: Key.Use, status: str) -> list[str]:
    return sorted(Key.objects.filter(use=use, status=status).values_list("kid", flat=True))


def slots() -> list[tuple[str, str]]:
    """Return the use and the status of every stored key."""
    return sorted(Key.objects.values_list("use", "status"))


def rows() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


def to_public_pem(key: Any) -> str:
    return material.to_text(key, file_format="pem")


def public_pem(rsa_pool: Any) -> str:
    """Return the public key of a new key pair in the PEM format."""
    return to_public_pem(rsa_pool.take())


def accepted(token: str) -> bool:
    ring = keys_ring.load()
    try:
        signed, _ = jose.decrypt(token, ring.decryption_keys())
        jose.verify(signed, ring.verification_keys())
    except InvalidToken:
        return False
    return True
