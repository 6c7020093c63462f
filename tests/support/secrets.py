"""A recorder of all secrets of a test. The recorder searches texts for the secrets in several encodings."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from instaccess.opaque import Opaque

PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")
LENGTH = 24
"""The maximum length of the strings to search for. A pretty-printer can split longer strings into several lines."""


class Secrets:
    """A recorder of the secrets that a test adds, and of the secrets in all opaque objects that the app creates."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._seen: set[Any] = set()
        self._searched_lines: set[str] = set()
        self.texts: set[str] = set()
        """The strings to search for."""
        original = Opaque.__init__

        def init(opaque: Any, secret: Any) -> None:
            original(opaque, secret)
            self.add(secret)

        monkeypatch.setattr(Opaque, "__init__", init)

    def add(self, *values: Any) -> None:
        for value in values:
            known = frozenset(value.items()) if isinstance(value, Mapping) else value
            if known not in self._seen:
                self._seen.add(known)
                self.texts |= {text for form in forms(value) for text in _samples(form)}

    def find_in(self, text: str) -> list[str]:
        """Return the lines of a text that contain a secret.

        Skips the lines in which an earlier call found no secret, to save time.
        """
        lines = set(text.splitlines()) - self._searched_lines
        joined = "\n".join(lines)
        found = [secret for secret in self.texts if secret in joined]
        leaking = [line for line in lines if any(secret in line for secret in found)] if found else []
        self._searched_lines |= lines.difference(leaking)
        return leaking


def forms(value: Any) -> Iterator[str]:
    """Yield each encoding in which a text can contain the secret `value`."""
    if isinstance(value, hmac.HMAC):
        # An HMAC object contains no readable secret, because its key can't be read from its state.
        return
    if isinstance(value, Mapping):
        yield from _forms_of_jwk(value)
        return
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if "-----BEGIN" in text:
        yield from _forms_of_pem(text)
    elif text.startswith('{"') and text.rstrip().endswith("}"):
        yield from forms(json.loads(text))
    elif isinstance(value, bytes):
        yield from (value.hex(), repr(value)[2:-1])
        yield from (encode(value).decode() for encode in (base64.b64encode, base64.urlsafe_b64encode))
    elif text.count(".") in (2, 4):
        yield from text.split(".")[1:]  # Skip the header, because the header isn't secret.
    else:
        yield text


# Parse keys without jwcrypto, because some tests replace functions of jwcrypto with functions that fail.


def _forms_of_pem(text: str) -> Iterator[str]:
    try:
        # Skip the validation of the key, which takes 35 ms in OpenSSL, because every key of the tests is valid.
        key: Any = load_pem_private_key(text.encode(), None, unsafe_skip_rsa_key_validation=True)
    except (TypeError, ValueError):
        # The text contains a public, invalid or encrypted key, and therefore no readable secret.
        return
    numbers = key.private_numbers()
    private = (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
    for number in private:
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        yield from (base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), str(number), f"{number:x}")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    yield from pem.splitlines()[8:-1:4]  # Skip the first lines, because they contain the public modulus.


def _forms_of_jwk(key: Mapping[str, Any]) -> Iterator[str]:
    if "k" in key:
        yield from (key["k"], base64.urlsafe_b64decode(key["k"] + "==").hex())
    if "d" not in key:
        return
    e, n, d, p, q, dp, dq, qi = (
        int.from_bytes(base64.urlsafe_b64decode(key[name] + "=="), "big") for name in ("e", "n", *PRIVATE_MEMBERS)
    )
    numbers = RSAPrivateNumbers(p, q, d, dp, dq, qi, RSAPublicNumbers(e, n))
    private = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    yield from _forms_of_pem(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def _samples(form: str) -> Iterable[str]:
    """Return strings of LENGTH characters from the beginning, the middle and the end of an encoding.

    Returns only `form` if `form` is shorter than LENGTH. Returns nothing if `form` has fewer than 16 characters and
    is therefore too short to be a secret.
    """
    if len(form) < LENGTH:
        return [form] if len(form) >= 16 else []
    middle = (len(form) - LENGTH) // 2
    return [form[:LENGTH], form[middle : middle + LENGTH], form[-LENGTH:]]
