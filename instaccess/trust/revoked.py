"""A deny list in memory: revoked tokens, users, accounts and keys.

This module doesn't read the database or the clock.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ..tokens import AFTERLIFE, CLOCK_SKEW, MAX_LIFETIME, Claims

RETENTION = MAX_LIFETIME + CLOCK_SKEW + AFTERLIFE
"""The time, in seconds, for which an entry must stay in the deny list.

Afterwards, every gateway refuses the revoked tokens, because the tokens have expired.
"""

NO_TOKENS = -1
"""A number lower than every `iat`. If no tokens are revoked, this number replaces the largest revoked `iat`."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of revocations: the revocations that a database or another issuer returns in one response.

    Attributes:
        tokens: the `jti` of each revoked token.
        users, accounts: mappings from the uuid of a user or an account to the largest `iat`, in seconds since 1970,
            of its revoked tokens.
        keys: the kid of each revoked key.
        all_until: the largest `iat`, in seconds since 1970, of the tokens that a revocation of all tokens covers.
            `NO_TOKENS` if there is no such revocation.
        cursor: the position after this page, to read the next page. Empty if the issuer doesn't support positions.
        more: whether more pages can be read now.
        etag: the ETag of the HTTP response that contained this page, or an empty string.
        position_lost: whether the issuer has lost the requested position, for example because its database was
            restored from a backup.
    """

    tokens: Collection[str] = ()
    users: Mapping[str, int] = field(default_factory=dict)
    accounts: Mapping[str, int] = field(default_factory=dict)
    keys: Collection[str] = ()
    all_until: int = NO_TOKENS
    cursor: str = ""
    more: bool = False
    etag: str = ""
    position_lost: bool = False


class DenyList(AbstractSet[str]):
    """A set of the `jti` of each revoked token, with the revocations of users, accounts, keys and all tokens.

    A revocation can't be undone, so every entry is kept for at least `RETENTION` seconds. Older entries are dropped
    to limit the memory, except keys, which are never dropped. Threads may use the deny list while another thread adds
    entries.
    """

    def __init__(self) -> None:
        self.cursor = self.etag = ""
        self._keys: frozenset[str] = frozenset()
        self._recent, self._older = _Entries(), _Entries()
        self._recent_since = float("-inf")
        self._lock = threading.Lock()

    def add(self, page: Page, *, now: float) -> None:
        """Add the revocations of a page, and drop entries that are no longer needed.

        Args:
            now: the current time, in seconds on a monotonic clock.
        """
        with self._lock:
            if now - self._recent_since >= RETENTION:
                self._older, self._recent, self._recent_since = self._recent, _Entries(), now
            self._recent.tokens.update(page.tokens)
            for own, added in ((self._recent.users, page.users), (self._recent.accounts, page.accounts)):
                own.update((uuid, max(iat, own.get(uuid, iat))) for uuid, iat in added.items())
            self._recent.all_until = max(page.all_until, self._recent.all_until)
            if not self._keys.issuperset(page.keys):
                self._keys |= frozenset(page.keys)
            self.cursor, self.etag = page.cursor, page.etag

    def find(self, claims: Claims, *kids: str) -> str | None:
        """Return the reason, for the log, why a token is revoked. Returns None if the token isn't revoked.

        Args:
            kids: the kids of the keys that verified and decrypted the token.
        """
        if claims.jti in self:
            return "the token was revoked"
        if not self._keys.isdisjoint(kids):
            return "the key of the token was revoked"
        for entries in (self._recent, self._older):
            if claims.issued_at <= entries.all_until:
                return "all tokens with this time of issue or an earlier time of issue were revoked"
            # Compare the real user of a masquerade too, because the real user has the token.
            for uuid in filter(None, (claims.user_uuid, claims.masquerading_user_uuid)):
                if claims.issued_at <= entries.users.get(uuid, NO_TOKENS):
                    return "all tokens of the user were revoked"
            if claims.issued_at <= entries.accounts.get(claims.account_uuid, NO_TOKENS):
                return "all tokens of the account were revoked"
        return None

    def sizes(self) -> Mapping[str, int]:
        """Return the number of entries by kind. An entry that was added in two `RETENTION` periods counts twice."""
        recent, older = self._recent, self._older
        return {
            "token": len(recent.tokens) + len(older.tokens),
            "user": len(recent.users) + len(older.users),
            "account": len(recent.accounts) + len(older.accounts),
            "key": len(self._keys),
        }

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
        self.all_until = NO_TOKENS
