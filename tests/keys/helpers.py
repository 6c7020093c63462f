"""Helpers for tests of the key lifecycle: read stored keys and check tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from instaccess.exceptions import InvalidToken
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.tokens import jose
from instaccess.trust import material

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
BOTH_USES = pytest.mark.parametrize("use", [SIG, ENC])


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)


def kids(use: Key.Use, status: str) -> list[str]:
    return sorted(Key.objects.filter(use=use, status=status).values_list("kid", flat=True))


def rows() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


def public_pem(rsa_pool: Any) -> str:
    return material.to_text(rsa_pool.take(), file_format="pem", private=False)


def accepted(token: str) -> bool:
    ring = keys_ring.load()
    try:
        signed, _ = jose.decrypt(token, ring.decryption_keys())
        jose.verify(signed, ring.verification_keys())
    except InvalidToken:
        return False
    return True
