"""Generation, parsing, checking and serialization of RSA keys. This module does not use the database."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.asymmetric import rsa
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from ..conf import conf
from ..exceptions import KeyRefused
from ..opaque import Opaque, concealed
from ..tokens import PrivateKey
from . import roca

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 4096
MIN_EXPONENT = 65537

PUBLIC_MEMBERS = ("kty", "n", "e")
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")
"""The private members of an RSA key (RFC 7518 §6.3).

Only these members and `PUBLIC_MEMBERS` are copied from a JWK. Other members are dropped.
"""


@concealed
def generate(use: str) -> PrivateKey:
    """Generate an RSA key pair of KEY_SIZE bits.

    Don't call this function while you hold a lock, because generation can take more than a second.

    Args:
        use: the member `use` of the key: `sig` or `enc`.
    """
    return PrivateKey(JWK.generate(kty="RSA", size=conf.key_size, use=str(use)))


def public_members(key: JWK | PrivateKey, *, use: str) -> dict[str, str]:
    """Return the members of the public JWK: `kty`, `n`, `e`, `use`, and the RFC 7638 thumbprint as `kid`."""
    public = key.public() if isinstance(key, PrivateKey) else key
    return {**{name: public[name] for name in PUBLIC_MEMBERS}, "use": str(use), "kid": public.thumbprint()}


@concealed
def for_use(key: PrivateKey, *, use: str) -> PrivateKey:
    """Return a copy of a private key with the given `use`, and with its RFC 7638 thumbprint as `kid`."""
    members = {name: key.reveal()[name] for name in PRIVATE_MEMBERS}
    return PrivateKey(JWK(**public_members(key, use=use), **members))


@concealed
def parse(data: Opaque[bytes]) -> JWK | PrivateKey:
    """Parse and check an RSA key.

    Args:
        data: a PEM (PKCS#8, SubjectPublicKeyInfo or certificate), or one JWK as JSON. The data is opaque, because the
            key may be private.

    Returns the private key, or the public key if the data contains no private key.

    Raises:
        KeyRefused: the data is not an RSA key of 2048 to 4096 bits with an odd modulus and an exponent of 65537 or
            more, or the key is vulnerable to the ROCA attack. The message gives the reason and never contains key
            material.
    """
    raw = data.reveal().strip()
    try:
        if raw.startswith(b"{"):
            members = json.loads(raw)
            if "generate" in members:
                raise KeyRefused("a JWK with a `generate` member is not a key")
            # Only known members are copied, because jwcrypto fails on some members that a reader must ignore
            # (RFC 7517 §4). `use`, `key_ops`, `alg` and `kid` are dropped, because the caller decides how the key is
            # used.
            names = PUBLIC_MEMBERS + PRIVATE_MEMBERS if members.get("kty") == "RSA" else members
            key = JWK(**{name: members[name] for name in names if name in members})
        else:
            key = JWK.from_pem(raw + b"\n")
    except (JWException, TypeError, ValueError, LookupError, RecursionError) as error:
        raise KeyRefused(
            f"this is neither an unencrypted PEM key nor a JWK{_conversion_hint(raw)} ({type(error).__name__})"
        ) from None
    check_strength(key)
    members = {name: key[name] for name in PUBLIC_MEMBERS + PRIVATE_MEMBERS if name in key}
    return PrivateKey(JWK(**members)) if key.has_private else JWK(**members)


def _conversion_hint(raw: bytes) -> str:
    """Return a hint on how to convert a key that is in another common format, or "" if the format is unknown."""
    if b"ENCRYPTED" in raw:
        return "; the key has a passphrase: to remove the passphrase, run `openssl pkey -in FILE -out NEW.pem`"
    if b"OPENSSH PRIVATE KEY" in raw:
        return (
            "; the key is in OpenSSH format: copy the file, because `ssh-keygen -p` overwrites its file. To convert "
            "the copy to PEM, run `ssh-keygen -p -m PEM -f COPY`"
        )
    if raw.startswith(b"ssh-"):
        return "; the key is in OpenSSH format: to print the key as PEM, run `ssh-keygen -e -m PKCS8 -f FILE`"
    if b'"keys"' in raw:
        return "; the text may be a JWK set: copy the JWK that you need out of the JWK set"
    if raw.startswith(b"0"):
        return (
            "; the key may be in DER format: to convert the key to PEM, run `openssl pkey -inform DER -in FILE -out "
            "NEW.pem` (with -pubin for a public key)"
        )
    return ""


def check_strength(key: JWK) -> None:
    """Check the type, size, exponent and modulus of a key, and whether its private and public members match.

    Raises KeyRefused if a check fails.
    """
    if key.get("kty") != "RSA":
        raise KeyRefused(f"the key type is {key.get('kty')}; only RSA is accepted")
    try:
        rsa_members = JWK(**{name: key[name] for name in PUBLIC_MEMBERS + PRIVATE_MEMBERS if name in key})
        # The cryptography library refuses an exponent that is even or too small, and private members that don't match
        # the public members. The library accepts a public key with an even modulus.
        public: rsa.RSAPublicKey = rsa_members.get_op_key("verify")
        if rsa_members.has_private:
            rsa_members.get_op_key("sign")
    except (JWException, TypeError, ValueError, LookupError) as error:
        raise KeyRefused(f"the RSA key can't be used ({type(error).__name__})") from None
    if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        raise KeyRefused(f"the key has {public.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")
    numbers = public.public_numbers()
    if numbers.e < MIN_EXPONENT:
        raise KeyRefused(f"the public exponent is {numbers.e}; at least {MIN_EXPONENT} is accepted")
    if numbers.n % 2 == 0:
        raise KeyRefused("the modulus is even, so the key is damaged or not an RSA key: get a new copy of the key")
    if roca.is_weak(numbers.n):
        raise KeyRefused(
            "the key is weak (ROCA, CVE-2017-15361): the library or chip that generated the key is faulty, so an "
            "attacker can compute the private key from the public key. Generate a new key with OpenSSL"
        )


def to_text(key: JWK, *, file_format: str) -> str:
    """Serialize a public key, and return the PEM or the JWK as a string.

    Args:
        file_format: `pem` for PEM (SubjectPublicKeyInfo), or `jwk` for a JWK in JSON.
    """
    return _to_text(key, file_format, private=False)


@concealed
def private_to_text(key: PrivateKey, *, file_format: str) -> Opaque[str]:
    """Serialize a private key without encryption, and return the PEM or the JWK as an opaque string.

    Args:
        file_format: `pem` for PEM (PKCS#8), or `jwk` for a JWK in JSON.
    """
    return Opaque(_to_text(key.reveal(), file_format, private=True))


def _to_text(key: JWK, file_format: str, *, private: bool) -> str:
    if file_format == "pem":
        # jwcrypto requires an explicit None to export an unencrypted key.
        exported = key.export_to_pem(private_key=True, password=None) if private else key.export_to_pem()
        return str(exported.decode())
    members = PUBLIC_MEMBERS + ("use", "kid") + (PRIVATE_MEMBERS if private else ())
    return json.dumps({name: key[name] for name in members if name in key}, indent=2) + "\n"
