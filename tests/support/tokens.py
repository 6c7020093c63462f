"""Functions and a factory that create valid and invalid tokens without the issuer."""

from __future__ import annotations

import json
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import jwt
from joserfc import jwe
from joserfc.jwk import RSAKey
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from instaccess.tokens import PrivateKey
from instaccess.trust import DenyList, Page

ISSUER = "instructure:inst_access"
NOW = 1_800_000_000
"""The current time in tests of pure functions, in seconds since the epoch."""


def claims(now: int = NOW, **changes: Any) -> dict[str, Any]:
    """Return a claims set that is valid at `now`, with the given changes. The value `...` removes a claim."""
    payload = {
        "iss": ISSUER,
        "jti": str(uuid.uuid4()),
        "iat": now,
        "exp": now + 3600,
        "sub": "2d5d6f1a-0e5b-4a0f-8b5e-3f6f3b0c7a11",
        "acct": "7f0a1f4e-9f0c-4a53-9a39-0d6a3c1b2e5d",
        "canvas_domain": "canvas.example.edu",
        **changes,
    }
    return {name: value for name, value in payload.items() if value is not ...}


def denying(*jtis: str) -> DenyList:
    """Return a deny list that contains the tokens with these token ids."""
    deny_list = DenyList()
    deny_list.add(Page(jtis), now=0)
    return deny_list


def canvas_claims(now: int = NOW, **changes: Any) -> dict[str, Any]:
    """Return a claims set such as Canvas's gem writes for a service user: with integer ids and without a domain.

    `...` removes a claim.
    """
    canvas = {
        "canvas_domain": ...,
        "masq_sub": "9d1c7a40-90a5-4c7a-8f43-6d6f0f3a2b10",
        "masq_shard": 1,
        "debug_user_global_id": 10_000_000_000_001,
        "debug_masq_global_id": 10_000_000_000_002,
        "client_id": 10_000_000_000_107,
        "instructure_service": True,
    }
    return claims(now, **(canvas | changes))


def signed_by_pyjwt(payload: dict[str, Any], key: JWK, **header: str) -> str:
    """Sign claims with PyJWT, an independent implementation. As in Canvas, the JWS contains no `kid`."""
    private = key.export_to_pem(private_key=True, password=None)
    return jwt.encode(payload, private, "RS256", headers=header or None)


def encrypted_by_joserfc(signed: str, key: JWK) -> str:
    """Encrypt a signed token with joserfc, an independent implementation. As in Canvas, the JWE has no `kid`."""
    public = RSAKey.import_key(key.export_to_pem())
    return str(jwe.encrypt_compact({"alg": "RSA-OAEP", "enc": "A128CBC-HS256"}, signed, public))


class TokenFactory:
    """A factory that creates tokens with one signing key and one encryption key."""

    def __init__(self, signing: JWK, encryption: JWK) -> None:
        self.signing, self.encryption = signing, encryption
        self.signing_kid, self.encryption_kid = signing.thumbprint(), encryption.thumbprint()
        self.decryption_keys = {self.encryption_kid: PrivateKey(encryption)}
        self.verification_keys = {self.signing_kid: JWK(**signing.export_public(as_dict=True))}

    def signed(self, payload: dict[str, Any] | bytes | None = None, **header: Any) -> str:
        """Return a JWS with this payload. Keyword arguments change members of the header; `...` removes a member."""
        if not isinstance(payload, bytes):
            payload = json.dumps(claims() if payload is None else payload).encode()
        members = _members({"typ": "JWT", "alg": "RS256", "kid": self.signing_kid}, header)
        jws = JWS(payload)
        jws.allowed_algs = [members["alg"]]
        jws.add_signature(self.signing, protected=json.dumps(members))
        return str(jws.serialize(compact=True))

    def encrypted(self, inner: str | bytes | None = None, **header: Any) -> str:
        """Return a JWE with the content `inner`, by default a JWS. Keyword arguments change members of the header."""
        inner = self.signed() if inner is None else inner
        members = {"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "cty": "JWT", "kid": self.encryption_kid}
        members = _members(members, header)
        encrypted = JWE(inner, json.dumps(members), algs=[members["alg"], members["enc"]])
        encrypted.add_recipient(self.encryption)
        return str(encrypted.serialize(compact=True))

    def token(self, **changes: Any) -> str:
        """Return an encrypted token. Keyword arguments change claims; the value `...` removes a claim."""
        return self.encrypted(self.signed(claims(**changes)))


def _members(members: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not ...}


def with_header(token: str, header: str | bytes | dict[str, Any]) -> str:
    """Replace the protected header of a token. The tag or the signature of the returned token doesn't match."""
    if isinstance(header, dict):
        header = json.dumps(header)
    raw = header.encode() if isinstance(header, str) else header
    return b64(raw) + token[token.index(".") :]


def header_of(token: str) -> dict[str, Any]:
    first = token.partition(".")[0]
    header: dict[str, Any] = json.loads(urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    return header


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def non_canonical_forms(token: str) -> list[str]:
    """Return non-canonical encodings of a token, which a lenient parser would accept as the same token."""
    segments = token.split(".")
    last = segments[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    forms = [
        token + "=",
        token + "==",
        token.replace(".", "=.", 1),
        token.replace("-", "+").replace("_", "/"),
        token + "\n",
        token + " ",
        " " + token,
        token + "\x00",
        token[:40] + "\n" + token[40:],
        token[:40] + "!" + token[40:],
        token + ".",
        "." + token,
    ]
    if len(last) % 4:  # The last character contains unused bits, so several last characters decode to the same bytes.
        index = alphabet.index(last[-1])
        forms.append(token[:-1] + alphabet[index ^ 1])
    return [text for text in forms if text != token]
