"""The state of all keys, for the admin pages.

`load_health` loads the keys in two queries, checks the HMAC of each row, and unseals each private key as a test. A
key that can't be used doesn't cause an error. This module never writes to the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count

from .. import audit
from ..conf import conf
from ..exceptions import KeyAltered, Reason
from ..models import Key
from . import provision, queries

MAX_KEYS = 100
"""The maximum number of keys that are unsealed and shown. Unsealing a key takes about a millisecond."""


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """The state of the stored keys.

    Attributes:
        keys: the current, future and recent keys, the most relevant first. At most `MAX_KEYS` keys, without keys
            whose rows were modified.
        totals: a mapping from `use` to the number of all stored keys.
        live: a mapping from kid to the number of live tokens. Each token is counted for its signing key and for its
            encryption key.
        undecryptable: a mapping from kid to the `code` of the UnsealError, for the keys whose private key can't be
            unsealed or whose row can't be checked.
        altered: readable rows that were modified or inserted without this package. The keys of these rows are not
            used.
        unreadable: the primary keys of modified rows that can't be read.
        derived: whether private keys are sealed with a key derived from SECRET_KEY.
    """

    keys: tuple[Key, ...] = ()
    totals: Mapping[str, int] = field(default_factory=dict)
    live: Mapping[str, int] = field(default_factory=dict)
    undecryptable: Mapping[str, Reason] = field(default_factory=dict)
    altered: tuple[Key, ...] = ()
    unreadable: tuple[int, ...] = ()
    derived: bool = False

    @property
    def total(self) -> int:
        """The number of all stored keys."""
        return sum(self.totals.values())


def load_health(*, since: datetime, now: datetime, live: Mapping[str, int] | None = None) -> KeyHealth:
    """Read the state of the keys in two queries, or in one query if `live` is given.

    Args:
        since: past keys that were retired before `since` are left out if their private key is not stored. Revoked
            keys that were revoked before `since` are left out if no live token uses the key.
        now: the current time. Tokens that have not expired at `now` are live.
        live: the numbers of live tokens from `live_tokens`. If None, the live tokens are counted.

    Raises:
        ConfigError: a setting is invalid.
    """
    live = live_tokens(now=now) if live is None else live
    with_live_tokens = set(sorted(live)[:MAX_KEYS])
    stored, errors = queries.examine()
    altered = {pk for pk, error in errors.items() if isinstance(error, KeyAltered)}
    relevant = [
        row for row in stored if row.pk not in altered and _is_relevant(row, since=since, live=with_live_tokens)
    ]
    rows = tuple(sorted(relevant, key=_relevance)[:MAX_KEYS])
    unchecked = {row.kid: errors[row.pk].code for row in rows if row.pk in errors}
    used = [row for row in rows if row.status != Key.Status.REVOKED]
    return KeyHealth(
        keys=rows,
        totals=dict(Counter(row.use for row in stored)),
        live=live,
        undecryptable=unchecked | {kid: error.code for kid, error in provision.undecryptable(used).items()},
        altered=tuple(row for row in stored if row.pk in altered),
        unreadable=tuple(sorted(altered - {row.pk for row in stored})),
        derived=conf.key_encryption_keys_are_derived,
    )


def live_tokens(*, now: datetime, limit: int | None = None) -> dict[str, int]:
    """Return a mapping from kid to the number of live tokens.

    Runs one query, which reads the audit rows of about the last hour. If `limit` is given, only the latest `limit`
    live tokens are counted.
    """
    counts: Counter[str] = Counter()
    pairs = audit.live_tokens(now=now).order_by().values_list("signing_kid", "encryption_kid")
    rows: Iterable[tuple[str, str, int]]
    if limit is None:
        rows = pairs.annotate(count=Count("pk"))
    else:
        rows = ((*pair, count) for pair, count in Counter(pairs.order_by("-issued_at")[:limit]).items())
    for signing, encryption, count in rows:
        for kid in {signing, encryption} - {""}:
            counts[kid] += count
    return dict(counts)


def short_kid(kid: str) -> str:
    """Return the first 8 characters of a kid, for display. The management commands accept this short form."""
    return kid[:8]


def _is_relevant(row: Key, *, since: datetime, live: Container[str]) -> bool:
    if row.status == Key.Status.REVOKED:
        return row.kid in live or (row.revoked_at is not None and row.revoked_at >= since)
    is_recent = row.retired_at is None or row.retired_at >= since
    return is_recent or row.has_private or row.status in {Key.Status.FUTURE, Key.Status.CURRENT}


_RANK = {Key.Status.CURRENT: 0, Key.Status.FUTURE: 1, Key.Status.PAST: 2}


def _relevance(row: Key) -> tuple[int, float]:
    # Future keys are sorted oldest first, because the oldest future key becomes current next. Past and revoked keys
    # are sorted latest first.
    rank = _RANK.get(Key.Status(row.status), 3) if row.status in Key.Status else 4
    time = (row.created_at if rank < 2 else row.retired_at or row.revoked_at or row.created_at).timestamp()
    return rank, time if rank < 2 else -time
