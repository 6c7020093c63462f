"""A benchmark that encodes and decodes tokens with this package, with bare OpenSSL and with other libraries.

    python -m benchmarks.crypto [--crypto-rounds 150]

Tokens are signed with RS256 and encrypted with RSA-OAEP and A128CBC-HS256, with 2048-bit keys. The benchmark measures
CPU time, because the code never waits.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import joserfc.jwe
import joserfc.jwk
import joserfc.jwt
from authlib.deprecate import AuthlibDeprecationWarning
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

from instaccess.gateway import unwrapping
from instaccess.tokens import PrivateKey, jose
from instaccess.tokens.claims import Claims
from instaccess.trust import DenyList

from . import sections, timing
from .bare import Decoder, Encoder

with warnings.catch_warnings():
    # Ignore Authlib's advice to use joserfc. The benchmark measures authlib.jose, because many projects still use
    # this module.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    import authlib.jose as authlib

CALLS = 10
ISSUER = "instructure:inst_access"
ALGS = {"alg": "RSA-OAEP", "enc": "A128CBC-HS256"}
BARE = "bare OpenSSL"

Operation = Callable[[], Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--crypto-rounds", type=int, default=150, help=f"number of rounds of {CALLS} calls each")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    encoders, decoders = alternatives()
    result = {}
    for what, each in (("mint", encoders), ("open", decoders)):
        times = timing.in_turns(each, rounds=options.crypto_rounds, calls=CALLS, clock=time.process_time)
        result[what] = [
            {
                "title": name,
                "microseconds": timing.spread([value * 1e6 for value in values], 1),
                "ratio": timing.ratios(values, times[BARE]),
            }
            for name, values in times.items()
        ]
    return result


def alternatives() -> tuple[dict[str, Operation], dict[str, Operation]]:
    """Return the encoders and the decoders, by name. First, check that each alternative produces a correct result."""
    signing, encryption = (JWK.generate(kty="RSA", size=2048, use=use) for use in ("sig", "enc"))
    kids = signing.thumbprint(), encryption.thumbprint()
    public = [JWK(**key.export_public(as_dict=True)) for key in (signing, encryption)]
    claims = Claims.new(
        now=time.time(),
        issuer=ISSUER,
        user_uuid=str(uuid.uuid4()),
        account_uuid=str(uuid.uuid4()),
        canvas_domain="canvas.example.edu",
        user_global_id="4711",
    )
    payload = claims.to_payload()

    def unwrap(token: str) -> unwrapping.Unwrapped:
        return unwrapping.unwrap(
            token,
            now=time.time(),
            decryption_keys={kids[1]: PrivateKey(encryption)},
            verification_keys={kids[0]: public[0]},
            denied=DenyList(),
            issuers=[ISSUER],
        )

    def encode() -> str:
        signed = jose.sign(claims.to_json(), PrivateKey(signing), kid=kids[0])
        return jose.encrypt(signed, public[1], kid=kids[1], **ALGS)

    encoder = Encoder(signing.get_op_key("sign"), kids[0], public[1].get_op_key("wrapKey"), kids[1])
    decoder = Decoder(encryption.get_op_key("unwrapKey"), public[0].get_op_key("verify"))
    headers = {"typ": "JWT", "alg": "RS256", "kid": kids[0]}, {**ALGS, "cty": "JWT", "kid": kids[1]}
    encoders: dict[str, Operation] = {
        BARE: lambda: encoder.encode(json.dumps(payload, separators=(",", ":")).encode()),
        "instaccess": encode,
    }
    token = encode()
    decoders: dict[str, Operation] = {
        BARE: lambda: decoder.decode(token),
        "instaccess": lambda: unwrap(token),
    }
    for name, library in (("jwcrypto", _jwcrypto), ("joserfc", _joserfc), ("Authlib", _authlib)):
        encoders[name], decoders[name] = library(headers, payload, signing, encryption, token)
    for name, operation in encoders.items():
        assert unwrap(operation()).claims == claims, name
    for name, operation in decoders.items():
        decoded = operation()
        if isinstance(decoded, unwrapping.Unwrapped):
            decoded = decoded.claims.to_payload()
        assert decoded == payload, name
    return encoders, decoders


Headers = tuple[dict[str, str], dict[str, str]]


def _jwcrypto(
    headers: Headers, payload: dict[str, Any], signing: JWK, encryption: JWK, token: str
) -> tuple[Operation, Operation]:
    """Return a function that encodes a token and a function that decodes a token. Both follow jwcrypto's README."""

    def encode() -> str:
        signed = JWT(header=headers[0], claims=payload)
        signed.make_signed_token(signing)
        encrypted = JWT(header=headers[1], claims=signed.serialize())
        encrypted.make_encrypted_token(encryption)
        return str(encrypted.serialize())

    def decode() -> dict[str, Any]:
        encrypted = JWT(key=encryption, jwt=token, expected_type="JWE")
        claims: dict[str, Any] = json.loads(JWT(key=signing, jwt=encrypted.claims).claims)
        return claims

    return encode, decode


def _joserfc(
    headers: Headers, payload: dict[str, Any], signing: JWK, encryption: JWK, token: str
) -> tuple[Operation, Operation]:
    keys = [joserfc.jwk.RSAKey.import_key(key.export(as_dict=True)) for key in (signing, encryption)]
    algorithms = list(ALGS.values())

    def encode() -> str:
        signed = joserfc.jwt.encode(headers[0], payload, keys[0], algorithms=["RS256"])
        return joserfc.jwe.encrypt_compact(headers[1], signed, keys[1], algorithms=algorithms)

    def decode() -> dict[str, Any]:
        inner = joserfc.jwe.decrypt_compact(token, keys[1], algorithms=algorithms).plaintext
        assert inner is not None
        return joserfc.jwt.decode(inner, keys[0], algorithms=["RS256"]).claims

    return encode, decode


def _authlib(
    headers: Headers, payload: dict[str, Any], signing: JWK, encryption: JWK, token: str
) -> tuple[Operation, Operation]:
    keys = [authlib.JsonWebKey.import_key(key.export(as_dict=True)) for key in (signing, encryption)]
    jwt = authlib.JsonWebToken(["RS256"])
    jwe = authlib.JsonWebEncryption(list(ALGS.values()))

    def encode() -> str:
        text: bytes = jwe.serialize_compact(headers[1], jwt.encode(headers[0], payload, keys[0]), keys[1])
        return text.decode()

    def decode() -> dict[str, Any]:
        return dict(jwt.decode(jwe.deserialize_compact(token, keys[1])["payload"], keys[0]))

    return encode, decode


def show(result: dict[str, Any]) -> str:
    return "\n".join(
        timing.table(
            {"mint": "Encode a token", "open": "Decode a token that is not cached"}[what],
            ["", "µs", "ratio to bare"],
            [[each["title"], timing.ranged(each["microseconds"], 0), timing.ranged(each["ratio"])] for each in rows],
        )
        for what, rows in result.items()
        if what in {"mint", "open"}
    )


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
