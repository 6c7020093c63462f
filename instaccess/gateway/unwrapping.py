"""The one way a token is opened: strict parsing, decryption, signature, claims, deny list, in this order.

To `unwrap` everything is passed in: the clock, the keys, the deny list. `unwrap_here` takes this deployment's, for
whoever has to decide as the gateway does: `forward_auth.py`, which puts it behind a url, and the inspector.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass

from django.db import Error as DbError
from jwcrypto.jwk import JWK

from .. import tokens, trust
from ..conf import conf
from ..exceptions import InstAccessError, InvalidToken, Reason, TokenExpired, TokenRevoked
from ..tokens import Claims, identifiers


@dataclass(frozen=True, slots=True)
class Opened:
    """A token that was opened and found good, once.

    Attributes:
        signed: the compact JWS inside, to be handed on.
        claims: what it says.
        encryption_kid, signing_kid: the keys it was under.
        verification_key: the public half of the latter. Others' kids are no thumbprints: one can come to name another
            key.
    """

    signed: str
    claims: Claims
    encryption_kid: str
    signing_kid: str
    verification_key: JWK

    def __repr__(self) -> str:
        return f"<Opened jti={self.claims.jti}>"


class TokenCache:
    """Opened tokens of this process, the least recently used forgotten first. Shared by its threads.

    Keyed by a digest of the text. That is safe because only a text that passed the strict parsing is ever put in:
    a second spelling of the same token has another digest and is parsed, and refused, by itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: OrderedDict[bytes, Opened] = OrderedDict()
        # A lock that a thread of the parent held at the fork would never be released in the child.
        os.register_at_fork(after_in_child=self.clear)

    def get(self, token: str) -> Opened | None:
        digest = _digest(token)
        with self._lock:
            opened = self._tokens.get(digest)
            if opened is not None:
                self._tokens.move_to_end(digest)
            return opened

    def put(self, token: str, opened: Opened, *, size: int) -> None:
        with self._lock:
            self._tokens[_digest(token)] = opened
            while len(self._tokens) > size:
                self._tokens.popitem(last=False)

    def drop(self, token: str) -> None:
        with self._lock:
            self._tokens.pop(_digest(token), None)

    def clear(self) -> None:
        self._lock = threading.Lock()
        self._tokens.clear()


def unwrap(
    token: str,
    *,
    now: float,
    decryption_keys: Mapping[str, JWK],
    verification_keys: Mapping[str, JWK],
    denied: Container[str],
    issuer: str,
    leeway: int = 0,
    key_algorithms: Collection[str] = tokens.KEY_ALGORITHMS,
    remembered: TokenCache | None = None,
    remember: int = 0,
) -> Opened:
    """From the encrypted text to the signed one.

    Args:
        token: the bearer as it came in.
        now: seconds since the epoch.
        decryption_keys, verification_keys: by kid, best first; at most three are tried where a token names none.
        denied: holds the `jti` of revoked tokens.
        issuer, leeway: see `Claims.from_payload`.
        key_algorithms: the JWE `alg` accepted.
        remembered, remember: opened tokens, and how many of them to keep. One found there needs no RSA; its expiry,
            the deny list and whether its keys are still held are looked at every time.

    Raises InvalidToken, and nothing else, for whatever is wrong with the token; its `code` says what.
    """
    opened = remembered.get(token) if remembered is not None and remember else None
    if opened is None:
        opened = _open(token, now, decryption_keys, verification_keys, issuer, leeway, key_algorithms)
        if remembered is not None and remember:
            remembered.put(token, opened, size=remember)
    try:
        _check_again(opened, now, decryption_keys, verification_keys, denied, leeway)
    except InvalidToken as error:
        claims = opened.claims
        error.jti, error.user_uuid, error.client_id = claims.jti, claims.user_uuid, claims.client_id or ""
        if remembered is not None:
            remembered.drop(token)
        raise
    return opened


def unwrap_with_settings(token: str, *, now: float, remembered: TokenCache | None = None) -> Opened:
    """`unwrap` with the keys, the deny list and the settings of this deployment.

    Raises InvalidToken for whatever is wrong with the token, and DatabaseError, KeyUnavailable or ConfigError where
    that can't be decided.
    """
    stale = conf.max_staleness
    key_algorithms = conf.key_algorithms
    try:
        decryption_keys = trust.decryption_keys(max_staleness=stale)
        verification_keys = trust.verification_keys(max_staleness=stale)
        denied = trust.current_deny_list()
    except (DbError, InstAccessError):
        # What is no token whatever the keys is refused all the same.
        tokens.parse_encrypted(token, key_algorithms=key_algorithms)
        raise
    return unwrap(
        token,
        now=now,
        decryption_keys=decryption_keys,
        verification_keys=verification_keys,
        denied=denied,
        issuer=conf.issuer,
        leeway=conf.leeway,
        key_algorithms=key_algorithms,
        remembered=remembered,
        remember=conf.remembered_tokens,
    )


class _Taken(Mapping[str, JWK]):
    """These keys, and which of them were taken: a JWKS can be read anew between two looks at it."""

    def __init__(self, keys: Mapping[str, JWK]) -> None:
        self._keys = keys
        self.keys_taken: dict[str, JWK] = {}

    def __getitem__(self, kid: str) -> JWK:
        key = self.keys_taken[kid] = self._keys[kid]
        return key

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _open(
    token: str,
    now: float,
    decryption_keys: Mapping[str, JWK],
    verification_keys: Mapping[str, JWK],
    issuer: str,
    leeway: int,
    key_algorithms: Collection[str],
) -> Opened:
    signed, encryption_kid = tokens.decrypt(token, decryption_keys, key_algorithms=key_algorithms)
    taken = _Taken(verification_keys)
    payload, signing_kid = tokens.verify(signed, taken)
    try:
        claims = Claims.from_payload(payload, now=now, issuer=issuer, leeway=leeway)
    except InvalidToken as error:
        known = identifiers(payload)
        error.jti = known.get("jti", "")[:64]
        error.user_uuid, error.client_id = known.get("user_uuid", ""), known.get("client_id", "")
        raise
    return Opened(signed, claims, encryption_kid, signing_kid, taken.keys_taken[signing_kid])


def _check_again(
    opened: Opened,
    now: float,
    decryption_keys: Mapping[str, JWK],
    verification_keys: Mapping[str, JWK],
    denied: Container[str],
    leeway: int,
) -> None:
    """What can have changed since a token was opened."""
    if now >= opened.claims.expires_at + leeway:
        raise TokenExpired("past its exp")
    held = verification_keys.get(opened.signing_kid)
    if held is None or opened.encryption_kid not in decryption_keys:
        raise InvalidToken("under a key we no longer hold", code=Reason.UNKNOWN_KID)
    if held is not opened.verification_key and held != opened.verification_key:
        raise InvalidToken("under a key whose kid is another's now", code=Reason.BAD_SIGNATURE)
    if opened.claims.jti in denied:
        raise TokenRevoked("on the deny list")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
