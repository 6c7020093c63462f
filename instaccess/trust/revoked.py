"""A deny list in memory: revoked tokens, users, accounts and keys. This module reads no database and no clock."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ..tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME, Claims

RETENTION = MAX_LIFETIME + CLOCK_SKEW + AFTERLIFE
"""Seconds after its revocation for which a gateway could still accept a token: every token has expired then."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the revocations, as a source returns them.

    Attributes:
        tokens: the `jti` of each revoked token.
        users, accounts: uuid -> the largest `iat` of the tokens that are revoked, in seconds since 1970.
        keys: the kid of each revoked key.
        cursor: the position after this part, which the source understands. Empty if the source has no positions.
        more: whether the source has more parts now.
        etag: the ETag of the answer that contained this part.
    """

    tokens: Collection[str] = ()
    users: Mapping[str, int] = field(default_factory=dict)
    accounts: Mapping[str, int] = field(default_factory=dict)
    keys: Collection[str] = ()
    cursor: str = ""
    more: bool = False
    etag: str = ""


class DenyList(AbstractSet[str]):
    """The `jti` of each revoked token, and the users, accounts and keys all of whose tokens are revoked.

    The deny list only grows: a revocation can't be undone. Entries other than keys are dropped `RETENTION` seconds
    after they were added, at the earliest, so the memory is bounded. Threads may use the deny list while another
    thread adds entries.
    """

    def __init__(self, page: Page | None = None, *, now: float = 0) -> None:
        self.cursor = self.etag = ""
        self._keys: frozenset[str] = frozenset()
        self._recent, self._older = _Entries(), _Entries()
        self._recent_since = now
        self._lock = threading.Lock()
        if page is not None:
            self.add(page, now=now)

    def add(self, page: Page, *, now: float) -> None:
        """Add revocations, and drop those that are no longer needed.

        Args:
            now: seconds on a clock that never goes back.
        """
        with self._lock:
            if now - self._recent_since >= RETENTION:
                self._older, self._recent, self._recent_since = self._recent, _Entries(), now
            self._recent.tokens.update(page.tokens)
            for own, added in ((self._recent.users, page.users), (self._recent.accounts, page.accounts)):
                own.update((uuid, max(iat, own.get(uuid, iat))) for uuid, iat in added.items())
            if not self._keys.issuperset(page.keys):
                self._keys |= frozenset(page.keys)
            self.cursor, self.etag = page.cursor, page.etag

    def find(self, claims: Claims, *kids: str) -> str | None:
        """Return why a token is revoked, or None if the token isn't revoked.

        Args:
            kids: the kids of the keys that verified and decrypted the token.
        """
        if claims.jti in self:
            return "the token was revoked"
        if not self._keys.isdisjoint(kids):
            return "the key of the token was revoked"
        for entries in (self._recent, self._older):
            # The real user of a masquerade is compared too, because the real user holds the token.
            for uuid in filter(None, (claims.user_uuid, claims.masquerading_user_uuid)):
                if claims.issued_at <= entries.users.get(uuid, -1):
                    return "all tokens of the user were revoked"
            if claims.issued_at <= entries.accounts.get(claims.account_uuid, -1):
                return "all tokens of the account were revoked"
        return None

    def __contains__(self, jti: object) -> bool:
        return jti in self._recent.tokens or jti in self._older.tokens

    def __iter__(self) -> Iterator[str]:
        return iter(self._recent.tokens | self._older.tokens)

    def __len__(self) -> int:
        return len(self._recent.tokens | self._older.tokens)


class _Entries:
    """The entries that were added within one period of `RETENTION` seconds."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.users: dict[str, int] = {}
        self.accounts: dict[str, int] = {}
