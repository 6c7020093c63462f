"""The keys of a JWKS URL. The keys are reloaded after an interval, or if no cached key verifies a token."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jwcrypto.jwk import JWK

from ..exceptions import KeyRefused, SourceUnavailable
from ..logs import get_logger
from ..opaque import Opaque
from ..tokens import ReloadableKeys
from . import material
from .fetch import fetch_json, without_query
from .refreshed import Refreshed

logger = get_logger("instaccess.keys")

JWKS_SECONDS = 300
"""The time, in seconds, after which a JWK set is reloaded, unless the server's `max-age` is shorter."""

JWKS_COOLDOWN = 30
"""The minimum time, in seconds, between two reloads that tokens with unknown keys cause.

Without this limit, an attacker who invents tokens could cause a reload per token.
"""

PATIENCE = 1.0
"""The maximum time, in seconds, for which a request waits for a reload that its token caused."""

MAX_MEMBERS = 32
"""The maximum number of members that are read from a JWK set."""


class MustWait(SourceUnavailable):
    """The error for a key that can't be looked up without waiting for the server of the JWKS URL."""


class RemoteKeys(ReloadableKeys):
    """The keys of a JWKS URL, as a mapping from kid to key.

    Looking up an unknown kid calls `reload`, which reloads the JWK set at most once per `JWKS_COOLDOWN` seconds.
    Threads can share the object, and a forked process can use the object of its parent.

    Args:
        url: the JWKS URL.
        max_staleness: a function that returns the additional time, in seconds, for which the last valid JWK set is
            used if the JWK set can't be read.
    """

    def __init__(self, url: str, *, max_staleness: Callable[[], int]) -> None:
        self._url = url
        self._max_staleness = max_staleness
        self._jwks: Refreshed[dict[str, JWK]] = Refreshed(self._load)
        self._interval = JWKS_SECONDS
        self._refetched_at = float("-inf")
        self._refetch_lock = threading.Lock()
        os.register_at_fork(after_in_child=self._replace_lock)

    def ensure_loaded(self) -> RemoteKeys:
        """Load the JWK set if no usable JWK set is cached, and return this mapping. Raises SourceUnavailable."""
        self.current()
        return self

    def without_waiting(self) -> ReloadableKeys:
        """Return a mapping with the same keys that raises MustWait instead of waiting for the server."""
        return _CachedKeys(self)

    def __getitem__(self, kid: str) -> JWK:
        return _find(self, kid)

    def reload(self) -> None:
        """Reload the JWK set if `JWKS_COOLDOWN` seconds have passed since the last reload."""
        # Threads that need the same new key wait for the same reload. The wait is short, because the server of the
        # JWKS URL may stall. During a long wait, an attacker who invents key ids could block all threads.
        since = time.monotonic() - self._refetched_at
        patience = PATIENCE if since >= JWKS_COOLDOWN else max(PATIENCE - since, 0)
        if not self._refetch_lock.acquire(timeout=patience):
            return  # The caller uses the cached JWK set, which does not contain the key.
        try:
            if time.monotonic() - self._refetched_at >= JWKS_COOLDOWN:
                self._refetched_at = time.monotonic()
                max_staleness = self._interval + self._max_staleness()
                self._jwks.get(interval=0, max_staleness=max_staleness, patience=PATIENCE)
        finally:
            self._refetch_lock.release()

    def would_reload(self) -> bool:
        """Return whether `reload` would reload the JWK set, or wait for a reload in another thread."""
        since = time.monotonic() - self._refetched_at
        return since >= JWKS_COOLDOWN or (since < PATIENCE and self._refetch_lock.locked())

    def __iter__(self) -> Iterator[str]:
        return iter(self.current())

    def __len__(self) -> int:
        return len(self.current())

    def current(self) -> dict[str, JWK]:
        """Return the JWK set. If the cached JWK set is too old, load the JWK set first. Raises SourceUnavailable."""
        return self._jwks.get(interval=self._interval, max_staleness=self._max_staleness())

    def cached(self) -> dict[str, JWK] | None:
        """Return the JWK set that `current` would return immediately, or None if `current` would have to load it."""
        return self._jwks.get_without_waiting(interval=self._interval, max_staleness=self._max_staleness())

    def _replace_lock(self) -> None:
        self._refetch_lock = threading.Lock()

    def _load(self, last: dict[str, JWK] | None) -> dict[str, JWK]:
        fetched = fetch_json(self._url)
        keys = read_jwks(fetched.document)
        if not keys:
            # A JWK set without a usable key is treated as a failure, because the cause is probably an error on the
            # issuer's side. The cached JWK set is used until its maximum age. Clients then get a 503. If the JWK set
            # without a usable key were used, clients would get a 401 for every token.
            raise SourceUnavailable(f"{without_query(self._url)} contains no usable signing key")
        self._interval = JWKS_SECONDS if fetched.max_age is None else max(1, min(fetched.max_age, JWKS_SECONDS))
        # Reuse the JWK objects of unchanged keys, so that OpenSSL doesn't have to prepare these keys again.
        return {kid: last[kid] if last and last.get(kid) == key else key for kid, key in keys.items()}


class _CachedKeys(ReloadableKeys):
    """The keys of `RemoteKeys`, for callers in an event loop. Raises MustWait instead of waiting for the server."""

    def __init__(self, keys: RemoteKeys) -> None:
        self._keys = keys

    def __getitem__(self, kid: str) -> JWK:
        return _find(self, kid)

    def reload(self) -> None:
        """Raise MustWait if the JWK set must be reloaded. Do nothing during the cooldown."""
        if self._keys.would_reload():
            raise MustWait("the JWK set must be reloaded")

    def __iter__(self) -> Iterator[str]:
        return iter(self.current())

    def __len__(self) -> int:
        return len(self.current())

    def current(self) -> dict[str, JWK]:
        if (keys := self._keys.cached()) is None:
            raise MustWait("the JWK set must be loaded")
        return keys


def _find(keys: RemoteKeys | _CachedKeys, kid: str) -> JWK:
    """Return the key with this kid. If the kid is unknown, reload the keys first.

    Raises KeyError if the reloaded keys don't contain the kid either.
    """
    current = keys.current()
    if kid not in current:
        keys.reload()
        current = keys.current()
    return current[kid]


def read_jwks(document: Any) -> dict[str, JWK]:
    """Return the usable signing keys of a JWK set (RFC 7517 §5) as a dictionary from kid to key.

    Members that can't be used are skipped. jwcrypto's `JWKSet.from_json` is not used, because that method generates a
    key for a member with `generate`, and rejects the whole JWK set because of one bad key.

    Args:
        document: the JWK set as parsed JSON. At most `MAX_MEMBERS` of its members are read.

    Raises:
        SourceUnavailable: the document is not a JWK set.
    """
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise SourceUnavailable("the document is not a JWK set")
    keys: dict[str, JWK] = {}
    for member in members[:MAX_MEMBERS]:
        if not isinstance(member, dict) or not _may_verify(member):
            continue
        try:
            key = material.parse(Opaque(json.dumps(member).encode()))
        except KeyRefused as error:
            logger.warning("a member of a JWK set was skipped: %(detail)s", reason=error.code, detail=str(error))
            continue
        # Use the kid in the JWK set, because tokens contain this kid. An issuer that doesn't use this package may use
        # kids that aren't thumbprints.
        kid = member.get("kid")
        kid = kid if isinstance(kid, str) else key.thumbprint()
        if kid in keys:
            logger.warning(
                "a member of a JWK set was skipped, because an earlier member has the same kid", kid=kid[:255]
            )
            continue
        keys[kid] = JWK(**material.public_members(key, use="sig"))
    return keys


def _may_verify(member: Mapping[str, Any]) -> bool:
    """Return whether a JWK may verify tokens according to its `use`, `key_ops` and `alg` (RFC 7517 §4.2 to §4.4)."""
    key_ops = member.get("key_ops", ["verify"])
    return (
        member.get("use", "sig") == "sig"
        and isinstance(key_ops, list)
        and "verify" in key_ops
        and member.get("alg", "RS256") == "RS256"
    )
