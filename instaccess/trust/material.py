"""RSA keys as material: generated, read from PEM or JWK, judged, written out. No database here."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from django.views.decorators.debug import sensitive_variables
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from ..conf import conf
from ..exceptions import KeyRefused

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 4096
MIN_EXPONENT = 65537

PUBLIC_MEMBERS = ("kty", "n", "e")
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")
"""RFC 7518 §6.3. Members are always picked by name: what else a JWK carries stays behind."""


def generate_jwk(use: str) -> JWK:
    """A new RSA key pair of `KEY_SIZE` bits. Takes a moment: never call it while holding a lock."""
    return JWK.generate(kty="RSA", size=conf.key_size, use=str(use))


def public_members(key: JWK, *, use: str) -> dict[str, str]:
    """The public half as a JWK with `use` and the RFC 7638 thumbprint as `kid`."""
    return {**{name: key[name] for name in PUBLIC_MEMBERS}, "use": str(use), "kid": key.thumbprint()}


@sensitive_variables()
def private_jwk(key: JWK, *, use: str) -> JWK:
    """Both halves as a JWK with `use` and `kid`."""
    return JWK(**public_members(key, use=use), **{name: key[name] for name in PRIVATE_MEMBERS})


@sensitive_variables()
def parse(data: str | bytes) -> JWK:
    """Read a PEM (PKCS#8, SubjectPublicKeyInfo, certificate) or one JWK as JSON, and judge it.

    Raises KeyRefused, saying why, unless it is an RSA key of 2048 to 4096 bits with an exponent of 65537 or more.
    """
    raw = b""
    try:
        raw = (data.encode() if isinstance(data, str) else data).strip()
        if raw.startswith(b"{"):
            members = json.loads(raw)
            if "generate" in members:
                raise KeyRefused("a JWK with a `generate` member is no key")
            # Picked by name: jwcrypto trips over some of the members that a reader has to ignore (RFC 7517 §4).
            # `use`, `key_ops`, `alg` and `kid` are its owner's; what the key is for here, the caller says.
            kept = PUBLIC_MEMBERS + PRIVATE_MEMBERS if members.get("kty") == "RSA" else members
            key = JWK(**{name: members[name] for name in kept if name in members})
        else:
            key = JWK.from_pem(raw + b"\n")
    except (JWException, TypeError, ValueError, LookupError, RecursionError) as error:
        raise KeyRefused(
            f"this is neither an unencrypted PEM key nor a JWK{_what_it_may_be(raw)} ({type(error).__name__})"
        ) from None
    check_strength(key)
    members = {name: key[name] for name in PUBLIC_MEMBERS + PRIVATE_MEMBERS if name in key}
    return JWK(**members)


@sensitive_variables()
def _what_it_may_be(raw: bytes) -> str:
    """What people try first, and what makes a key that can be read of it; empty where that is not known."""
    begins = raw[:4096]
    if b"ENCRYPTED" in begins:
        return ", but has a passphrase: `openssl pkey -in FILE -out NEW.pem` writes it without"
    if b"OPENSSH PRIVATE KEY" in begins:
        return ", but OpenSSH's own format: `ssh-keygen -p -m PEM -f COPY` rewrites a copy of the file"
    if begins.startswith(b"ssh-"):
        return ", but OpenSSH's own format: `ssh-keygen -e -m PKCS8 -f FILE` prints it as PEM"
    if b'"keys"' in begins:
        return ", but perhaps a JWK set: take the one JWK you mean out of it"
    if begins.startswith(b"0"):
        return ", but perhaps DER: `openssl pkey -inform DER -in FILE -out NEW.pem` (with -pubin for a public key)"
    return ""


@sensitive_variables()
def check_strength(key: JWK) -> None:
    """Raise KeyRefused unless this is an RSA key we would use, its halves belonging together."""
    if key.get("kty") != "RSA":
        raise KeyRefused(f"an RSA key is needed, this is {key.get('kty')}")
    try:
        plain = JWK(**{name: key[name] for name in PUBLIC_MEMBERS + PRIVATE_MEMBERS if name in key})
        # cryptography refuses an even or too small exponent and an even modulus by itself.
        public: rsa.RSAPublicKey = plain.get_op_key("verify")
        private: Any = plain.get_op_key("sign") if plain.has_private else None
    except (JWException, TypeError, ValueError, LookupError) as error:
        raise KeyRefused(f"this is no usable RSA key ({type(error).__name__})") from None
    if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        raise KeyRefused(f"the key has {public.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")
    if public.public_numbers().e < MIN_EXPONENT:
        raise KeyRefused(f"the public exponent is {public.public_numbers().e}; at least {MIN_EXPONENT} is accepted")
    if private is not None and private.public_key() != public:
        raise KeyRefused("the two halves do not belong together")


@sensitive_variables()
def to_text(key: JWK, *, file_format: str, private: bool) -> str:
    """PEM (PKCS#8 for a private half, unencrypted; SubjectPublicKeyInfo for a public one) or JWK as JSON."""
    if file_format == "pem":
        # jwcrypto takes None to mean "unencrypted on purpose".
        exported = key.export_to_pem(private_key=True, password=None) if private else key.export_to_pem()
        return str(exported.decode())
    members = PUBLIC_MEMBERS + ("use", "kid") + (PRIVATE_MEMBERS if private else ())
    return json.dumps({name: key[name] for name in members if name in key}, indent=2) + "\n"
