"""Functions that parse, import and format keys, with strings instead of the opaque objects of the app."""

from __future__ import annotations

from typing import Any

from jwcrypto.jwk import JWK

from instaccess.keys import provision
from instaccess.models import Key
from instaccess.opaque import Opaque
from instaccess.tokens import PrivateKey
from instaccess.trust import material


def parse(text: str | bytes) -> JWK:
    """Parse a key. If the string contains private members, the returned key contains the private members too."""
    key = material.parse(_opaque(text))
    return key.reveal() if isinstance(key, PrivateKey) else key


def import_key(text: str | bytes, **kwargs: Any) -> Key:
    return provision.import_key(_opaque(text), **kwargs)


def private_text(key: JWK, *, file_format: str = "pem") -> str:
    return material.private_to_text(PrivateKey(key), file_format=file_format).reveal()


def _opaque(text: str | bytes) -> Opaque[bytes]:
    return Opaque(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
