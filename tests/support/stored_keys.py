"""Helpers that read and check the stored keys."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from instaccess.conf import conf
from instaccess.keys import provision, row_hmac, sealing
from instaccess.models import Key

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION

CURRENT, FUTURE, PAST, REVOKED = Key.Status.CURRENT, Key.Status.FUTURE, Key.Status.PAST, Key.Status.REVOKED

OLD_KEK, NEW_KEK = (base64.urlsafe_b64encode(bytes([fill]) * 32).decode() for fill in (1, 2))


def write(rows: Iterable[Key], **columns: Any) -> None:
    """Change columns of keys and compute their HMACs, as this package does. Rows that aren't stored yet are added."""
    for row in rows:
        for name, value in columns.items():
            setattr(row, name, value)
        row.mac = row_hmac.authenticate(row, conf.key_encryption_keys)
        row.save()


def kids(use: str, status: str) -> list[str]:
    return list(Key.objects.filter(use=use, status=status).values_list("kid", flat=True))


def current_kid(use: str) -> str:
    """Check that every key can be unsealed, and return the kid of the current key with this `use`."""
    provision.check_sealed_keys()
    [kid] = kids(use, Key.Status.CURRENT)
    return kid


def sealed_under() -> set[str]:
    return {
        sealing.sealed_under(text)
        for text in Key.objects.exclude(sealed_private_jwk="").values_list("sealed_private_jwk", flat=True)
    }


def all_columns() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())
