"""Private keys at rest: a private JWK sealed as a compact JWE under a key-encryption key (RFC 7517 §7).

A sealed text names, in its protected header, the key (`kid`), what it is for (`use`) and which key-encryption key
sealed it (`kek`). All three are checked on opening, so a sealed text moved to another row stays shut.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.views.decorators.debug import sensitive_variables
from jwcrypto.common import JWException, base64url_decode, base64url_encode
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from .. import tokens
from ..conf import kek_id
from ..exceptions import InvalidToken, Reason, UnsealError

_ALG, _ENC = "A256KW", "A256GCM"
_MAX_PRIVATE_JWK_BYTES = 16_384


@sensitive_variables()
def seal(private: JWK, *, kid: str, use: str, keks: Sequence[bytes]) -> str:
    """Seal a private JWK under the first of the key-encryption keys (32 bytes each)."""
    header = {
        "alg": _ALG,
        "enc": _ENC,
        "cty": "jwk+json",
        "kid": kid,
        "use": use,
        "kek": kek_id(keks[0]),
    }
    jwe = JWE(private.export_private(), json.dumps(header), algs=[_ALG, _ENC])
    jwe.add_recipient(_as_jwk(keks[0]))
    return str(jwe.serialize(compact=True))


@sensitive_variables()
def unseal(sealed: str, *, kid: str, use: str, keks: Sequence[bytes]) -> JWK:
    """Open what `seal` made for this `kid` and `use`, with whichever key-encryption key it was sealed under.

    Raises UnsealError when none of ours sealed it, or when it was altered or belongs to another row.
    """
    kek = {kek_id(key): key for key in keks}.get(sealed_under(sealed))
    if kek is None:
        raise UnsealError(
            f"key {kid} is sealed under a key-encryption key that is not configured: put the one it was sealed with "
            "back into INSTACCESS['KEY_ENCRYPTION_KEYS'] (or SECRET_KEY_FALLBACKS, where it came from SECRET_KEY)",
            code=Reason.KEK_MISSING,
        )
    jwe = JWE(algs=[_ALG, _ENC])
    try:
        tokens.split_compact(sealed, 5)  # one spelling: jwcrypto would overlook some altered characters
        jwe.deserialize(sealed)
        jwe.decrypt(_as_jwk(kek), max_plaintext=_MAX_PRIVATE_JWK_BYTES)
        header = jwe.jose_header
        key = JWK.from_json(jwe.payload)
    except (InvalidToken, JWException, LookupError, TypeError, ValueError):
        key, header = None, {}
    if key is None or (header.get("kid"), header.get("use")) != (kid, use) or key.thumbprint() != kid:
        raise UnsealError(
            f"the sealed private half of key {kid} was altered or belongs to another key: restore the row from a "
            "backup, or revoke the key",
            code=Reason.SEAL_BROKEN,
        )
    return key


def sealed_under(sealed: str) -> str:
    """The id of the key-encryption key a sealed text names, or an empty text where it names none."""
    try:
        kek = json.loads(base64url_decode(sealed.split(".", 1)[0]))["kek"]
    except (LookupError, TypeError, ValueError, RecursionError):
        return ""
    return kek if isinstance(kek, str) else ""


def _as_jwk(kek: bytes) -> JWK:
    return JWK(kty="oct", k=base64url_encode(kek))
