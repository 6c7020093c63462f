"""Unwrapping of tokens: the only code that decides whether the gateway accepts an InstAccess token.

The checks run in a fixed order: strict parsing, decryption, signature, claims, deny list. `unwrap` receives the
current time, the keys and the deny list as arguments. `unwrap_with_settings` loads the keys and the deny list that
this deployment's settings configure. The gateway's view and the admin's token inspector call
`unwrap_with_settings`, so their decisions are the same.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from django.db import Error as DbError
from jwcrypto.jwk import JWK

from .. import tokens, trust, web
from ..conf import conf
from ..exceptions import InstAccessError, InvalidToken, Reason, TokenExpired, TokenRevoked
from ..opaque import Opaque
from ..tokens import Claims, PrivateKey, identifiers


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A decrypted token whose signature and claims have been verified.

    Attributes:
        signed: the compact JWS that the JWE contained. The gateway forwards the JWS to the service.
        claims: the claims of the JWS.
        encryption_kid, signing_kid: the key ids of the keys that decrypted and verified the token.
        verification_key: the public key that verified the token. `signing_kid` alone does not identify this key,
            because two issuers may use the same kid for different keys.
    """

    signed: str
    claims: Claims
    encryption_kid: str
    signing_kid: str
    verification_key: JWK

    def __repr__(self) -> str:
        return f"<Unwrapped jti={self.claims.jti}>"


class TokenCache:
    """A least-recently-used cache of unwrapped tokens, shared by the threads of a process.

    Tokens are looked up by the SHA-256 digest of the token string. Only tokens that have been decrypted and verified
    are stored. A non-canonical encoding of a cached token has a different digest, so the cache returns no result, and
    the strict parser refuses the encoding.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: OrderedDict[bytes, Unwrapped] = OrderedDict()
        # If a thread of the parent holds the lock during a fork, the child can never acquire the lock. The child
        # therefore gets a new lock.
        os.register_at_fork(after_in_child=self.clear)

    def get(self, token: str) -> Unwrapped | None:
        """Return the cached result for a token, or None. The result becomes the most recently used result."""
        digest = _digest(token)
        with self._lock:
            unwrapped = self._tokens.get(digest)
            if unwrapped is not None:
                self._tokens.move_to_end(digest)
            return unwrapped

    def put(self, token: str, unwrapped: Unwrapped, *, size: int) -> None:
        """Store the result for a token, then remove the least recently used results until at most `size` remain."""
        with self._lock:
            self._tokens[_digest(token)] = unwrapped
            while len(self._tokens) > size:
                self._tokens.popitem(last=False)

    def drop(self, token: str) -> None:
        """Remove the cached result for a token. If no result is cached, nothing happens."""
        with self._lock:
            self._tokens.pop(_digest(token), None)

    def clear(self) -> None:
        """Remove all results. The lock is replaced, because after a fork, the old lock may be held forever."""
        self._lock = threading.Lock()
        self._tokens.clear()


def unwrap(
    token: str,
    *,
    now: float,
    decryption_keys: Mapping[str, PrivateKey],
    verification_keys: Mapping[str, JWK],
    denied: trust.DenyList,
    issuers: Collection[str],
    leeway: int = 0,
    key_algorithms: Collection[str] = tokens.KEY_ALGORITHMS,
    cache: TokenCache | None = None,
    cache_size: int = 0,
) -> Unwrapped:
    """Decrypt a token, and check its signature, its claims and the deny list.

    If the result is cached, no RSA operation is needed. The expiry, the deny list and the availability of both keys
    are checked again on every call.

    Args:
        token: the bearer token as the client sent it.
        now: the current time, in seconds since 1970.
        decryption_keys, verification_keys: mappings from kid to key, in the order in which the keys are tried. If the
            token has no kid, at most three keys are tried.
        denied: the deny list, which contains the revoked tokens, users, accounts and keys.
        issuers: the accepted values of the `iss` claim.
        leeway: the time, in seconds past `exp`, for which a token is still accepted.
        key_algorithms: the accepted JWE `alg` values.
        cache: the cache of unwrapped tokens, or None.
        cache_size: the maximum number of tokens in the cache. If 0, the cache is not used.

    Raises:
        InvalidToken: the token is refused; `code` is the precise reason. A bad token causes no other exception.
    """
    unwrapped = cache.get(token) if cache is not None and cache_size else None
    if unwrapped is None:
        started = web.metrics.clock()
        unwrapped = _decrypt_and_verify(
            token, now, decryption_keys, verification_keys, issuers, leeway, key_algorithms
        )
        web.metrics.stage("gateway", "crypto", started)
        if cache is not None and cache_size:
            cache.put(token, unwrapped, size=cache_size)
    try:
        _check_still_valid(unwrapped, now, decryption_keys, verification_keys, denied, leeway)
    except InvalidToken as error:
        claims = unwrapped.claims
        error.jti, error.user_uuid, error.client_id = claims.jti, claims.user_uuid, claims.client_id or ""
        if cache is not None:
            cache.drop(token)
        raise
    return unwrapped


def unwrap_with_settings(token: Opaque[str], *, now: float, cache: TokenCache | None = None) -> Unwrapped:
    """Call `unwrap` with the keys, the deny list and the settings of this deployment.

    Args:
        token: the bearer token as the client sent it.
        now: the current time, in seconds since 1970.
        cache: the cache of unwrapped tokens, or None. REMEMBERED_TOKENS limits the size of the cache.

    Raises:
        InvalidToken: the token is refused.
        DatabaseError, KeyUnavailable, SourceUnavailable, ConfigError: the keys or the deny list can't be loaded.
    """
    max_staleness = conf.max_staleness
    key_algorithms = conf.key_algorithms
    started = web.metrics.clock()
    try:
        decryption_keys = trust.decryption_keys(max_staleness=max_staleness)
        verification_keys = trust.verification_keys(max_staleness=max_staleness)
        denied = trust.current_deny_list()
    except (DbError, InstAccessError):
        # If the string can't be an InstAccess token, `parse_encrypted` raises InvalidToken, and the client gets a 401
        # instead of a 503.
        tokens.parse_encrypted(token.reveal(), key_algorithms=key_algorithms)
        raise
    web.metrics.stage("gateway", "lookup", started)
    return unwrap(
        token.reveal(),
        now=now,
        decryption_keys=decryption_keys,
        verification_keys=verification_keys,
        denied=denied,
        issuers=conf.accepted_issuers,
        leeway=conf.leeway,
        key_algorithms=key_algorithms,
        cache=cache,
        cache_size=conf.remembered_tokens,
    )


class _RecordingKeys(tokens.ReloadableKeys):
    """A mapping from kid to key that records each key that is looked up.

    The key that verified a token is read from `returned`. A second look-up of the same kid could return a different
    key, because the JWK set may have been reloaded after the first look-up.
    """

    def __init__(self, keys: Mapping[str, JWK]) -> None:
        self._keys = keys
        self.returned: dict[str, JWK] = {}

    def __getitem__(self, kid: str) -> JWK:
        key = self.returned[kid] = self._keys[kid]
        return key

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def reload(self) -> None:
        if isinstance(self._keys, tokens.ReloadableKeys):
            self._keys.reload()

    def __len__(self) -> int:
        return len(self._keys)


def _decrypt_and_verify(
    token: str,
    now: float,
    decryption_keys: Mapping[str, PrivateKey],
    verification_keys: Mapping[str, JWK],
    issuers: Collection[str],
    leeway: int,
    key_algorithms: Collection[str],
) -> Unwrapped:
    signed, encryption_kid = tokens.decrypt(token, decryption_keys, key_algorithms=key_algorithms)
    recording_keys = _RecordingKeys(verification_keys)
    payload, signing_kid = tokens.verify(signed, recording_keys)
    try:
        claims = Claims.from_payload(payload, now=now, issuers=issuers, leeway=leeway)
    except InvalidToken as error:
        verified = identifiers(payload)
        error.jti = verified.get("jti", "")[:64]
        error.user_uuid, error.client_id = verified.get("user_uuid", ""), verified.get("client_id", "")
        raise
    return Unwrapped(signed, claims, encryption_kid, signing_kid, recording_keys.returned[signing_kid])


def _check_still_valid(
    unwrapped: Unwrapped,
    now: float,
    decryption_keys: Mapping[str, PrivateKey],
    verification_keys: Mapping[str, JWK],
    denied: trust.DenyList,
    leeway: int,
) -> None:
    """Check what can change after a token was decrypted: its expiry, its keys and the deny list.

    Raises InvalidToken if the token must be refused.
    """
    if now >= unwrapped.claims.expires_at + leeway:
        raise TokenExpired("the token has expired")
    current_key = verification_keys.get(unwrapped.signing_kid)
    if current_key is None or unwrapped.encryption_kid not in decryption_keys:
        raise InvalidToken("a key of the token is no longer available on this server", code=Reason.UNKNOWN_KID)
    if current_key is not unwrapped.verification_key and current_key != unwrapped.verification_key:
        raise InvalidToken(
            "the signing kid of the token now identifies a different key than when the token was cached",
            code=Reason.BAD_SIGNATURE,
        )
    reason = denied.find(unwrapped.claims, unwrapped.signing_kid, unwrapped.encryption_kid)
    if reason is not None:
        raise TokenRevoked(reason)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
