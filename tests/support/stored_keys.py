"""Functions that read, check and change the stored keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from django.db import connection
from django.utils import timezone
from jwcrypto.jwk import JWK

from instaccess.conf import conf
from instaccess.keys import provision, row_hmac, sealing
from instaccess.models import Key

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION

CURRENT, FUTURE, PAST, REVOKED = Key.Status.CURRENT, Key.Status.FUTURE, Key.Status.PAST, Key.Status.REVOKED

OLD_KEK, NEW_KEK = (base64.urlsafe_b64encode(bytes([fill]) * 32).decode() for fill in (1, 2))


def write(rows: Iterable[Key], **columns: Any) -> None:
    """Change columns of keys, compute the HMACs as this package does, and save the keys. New keys are inserted."""
    for row in rows:
        for name, value in columns.items():
            setattr(row, name, value)
        row.mac = row_hmac.authenticate(row, conf.key_encryption_keys)
        row.save()


def insert_with_sql(key: JWK, *, use: str, **columns: Any) -> Key:
    """Insert and return a key, as an attacker with access to the database but without a key-encryption key could."""
    kid = key.thumbprint()
    values: dict[str, Any] = {
        "kid": kid,
        "use": use,
        "alg": "RS256",
        "status": "future",
        "public_jwk": {**key.export_public(as_dict=True), "use": use, "kid": kid},
        "sealed_private_jwk": "",
        "created_at": timezone.now(),
        **columns,
    }
    values["public_jwk"] = json.dumps(values["public_jwk"])
    values["created_at"] = connection.ops.adapt_datetimefield_value(values["created_at"])
    values["activated_at"] = connection.ops.adapt_datetimefield_value(values.get("activated_at"))
    values.setdefault("mac", "")
    names = ", ".join(connection.ops.quote_name(name) for name in values)
    with connection.cursor() as cursor:
        placeholders = ", ".join(["%s"] * len(values))
        cursor.execute(f"INSERT INTO instaccess_key ({names}) VALUES ({placeholders})", list(values.values()))
    return Key.objects.get(kid=values["kid"])


def kids(use: str, status: str) -> list[str]:
    return list(Key.objects.filter(use=use, status=status).values_list("kid", flat=True))


def current_kid(use: str) -> str:
    """Check that every stored private key can be unsealed. Returns the kid of the current key with this `use`."""
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
