"""The keys of a JWKS URL, read again when it is time or when an unknown kid turns up."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from jwcrypto.jwk import JWK

from ..conf import conf
from ..exceptions import KeyRefused, SourceUnavailable
from . import material
from .fetch import fetch_json, shown
from .refreshed import PATIENCE, Refreshed

logger = logging.getLogger("instaccess.keys")

JWKS_SECONDS = 300


"""A JWKS is read again after this many seconds, or sooner where its server says so."""


JWKS_COOLDOWN = 30


"""Seconds between two readings that unknown kids bring about: strangers can invent kids."""


MAX_MEMBERS = 32


class RemoteKeys(Mapping[str, JWK]):
    """The keys of a JWKS URL. Asked for a kid it does not hold, it reads the set again, at most once a cooldown.
    While it can't be read, the last good set serves for MAX_STALENESS."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._snapshot: Refreshed[dict[str, JWK]] = Refreshed(self._load)
        self._interval = JWKS_SECONDS
        self._refetched_at = float("-inf")
        self._refetching = threading.Lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def keys_now(self) -> RemoteKeys:
        """This mapping, read. Raises SourceUnavailable where there is nothing to go on with."""
        self._keys()
        return self

    def __getitem__(self, kid: str) -> JWK:
        keys = self._keys()
        if kid not in keys:
            self._refetch()
            keys = self._keys()
        return keys[kid]

    def _refetch(self) -> None:
        # Whoever meets a new key at the same moment waits for the one reading, and then finds it. Not for long:
        # strangers can name kids that nobody has, and a server that hangs must not hold a thread for each.
        since = time.monotonic() - self._refetched_at
        patience = PATIENCE if since >= JWKS_COOLDOWN else max(PATIENCE - since, 0)
        if not self._refetching.acquire(timeout=patience):
            return  # by the set that is held there is no such key
        try:
            if time.monotonic() - self._refetched_at >= JWKS_COOLDOWN:
                self._refetched_at = time.monotonic()
                self._snapshot.get(interval=0, max_staleness=self._interval + conf.max_staleness)
        finally:
            self._refetching.release()

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def _keys(self) -> dict[str, JWK]:
        return self._snapshot.get(interval=self._interval, max_staleness=conf.max_staleness)

    def _renew_lock(self) -> None:
        self._refetching = threading.Lock()

    def _load(self, last: dict[str, JWK] | None) -> dict[str, JWK]:
        fetched = fetch_json(self._url)
        keys = read_jwks(fetched.document)
        if not keys:
            # An empty set would make every token unknown; more likely something is broken over there.
            raise SourceUnavailable(f"{shown(self._url)} holds no usable signing key")
        self._interval = JWKS_SECONDS if fetched.max_age is None else max(1, min(fetched.max_age, JWKS_SECONDS))
        # Parsed keys are kept where nothing has changed.
        return {kid: last[kid] if last and last.get(kid) == key else key for kid, key in keys.items()}


def read_jwks(document: Any) -> dict[str, JWK]:
    """The usable signing keys of a JWK set (RFC 7517 §5), member by member: a bad one is skipped and logged.

    `JWKSet.from_json` is not used: it makes up a key for a `generate` member and rejects a whole set for one bad key.
    """
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise SourceUnavailable("this is no JWK set")
    keys: dict[str, JWK] = {}
    for member in members[:MAX_MEMBERS]:
        if not isinstance(member, dict) or member.get("use", "sig") != "sig" or member.get("alg", "RS256") != "RS256":
            continue
        try:
            key = material.parse(json.dumps(member))
        except KeyRefused as error:
            logger.warning("member of a JWK set skipped: %s", error)
            continue
        # The set says under which name its tokens come; ours are thumbprints, others need not be.
        kid = member.get("kid")
        kid = kid if isinstance(kid, str) else key.thumbprint()
        if kid in keys:
            logger.warning("member of a JWK set skipped: another one before it has its kid")
            continue
        keys[kid] = JWK(**material.public_members(key, use="sig"))
    return keys
