"""Functions that build and parse tokens and headers without the code under test."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import HealthCheck, settings
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

CONTENT_ALGORITHMS = ("A128CBC-HS256", "A256GCM")
PAYLOAD = b'{"iss":"instructure:inst_access","sub":"ada"}'


# Hypothesis runs all examples of a test with the same fixtures, which is safe because no example changes an RSA key.
arbitrary_input = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


class UntouchableKeys(Mapping[str, JWK]):
    """A key mapping that fails the test if the code under test accesses the mapping.

    A token that is refused with these keys is refused before an RSA operation.
    """

    def __getitem__(self, kid: str) -> JWK:
        raise AssertionError("a key was looked up")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the keys were iterated")

    def __len__(self) -> int:
        raise AssertionError("the keys were counted")


NO_KEYS = UntouchableKeys()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def header_text(token: str) -> str:
    return unb64(token.split(".", maxsplit=1)[0]).decode()


def with_header(token: str, header: str | bytes) -> str:
    """Replace the protected header of a token. Returns the new token."""
    raw = header.encode() if isinstance(header, str) else header
    return ".".join([b64(raw), *token.split(".")[1:]])


def encrypted_as(header: Mapping[str, Any], plaintext: str, key: JWK) -> str:
    """Encrypt a plaintext with any header, as an attacker with the public key can. Returns the token."""
    jwe = JWE(plaintext.encode(), json.dumps(header), algs=[header["alg"], header["enc"]])
    jwe.add_recipient(key)
    return str(jwe.serialize(compact=True))
