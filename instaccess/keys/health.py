"""The state of all keys for the admin.

`load_health` loads the keys in three queries and unseals each private key as a test. A key that can't be unsealed
raises no error. This module never writes to the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count, Q

from .. import audit
from ..conf import conf
from ..exceptions import KeyUnavailable, Reason
from ..models import Key
from . import provision, ring, store

MAX_KEYS = 100
"""The maximum number of keys that are examined. Unsealing a key takes about a millisecond."""


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """The state of the keys.

    Attributes:
        keys: current, future and recent keys, at most `MAX_KEYS`, the most relevant first.
        totals: a mapping from `use` to the number of all stored keys.
        live: a mapping from kid to the number of live tokens. Each token counts for its signing and its encryption
            key.
        undecryptable: a mapping from the kid of each private key that can't be unsealed to the `code` of the
            UnsealError.
        modified: kids of keys whose public key does not match the kid.
        derived: whether the key-encryption key is derived from SECRET_KEY.
    """

    keys: tuple[Key, ...] = ()
    totals: Mapping[str, int] = field(default_factory=dict)
    live: Mapping[str, int] = field(default_factory=dict)
    undecryptable: Mapping[str, Reason] = field(default_factory=dict)
    modified: frozenset[str] = frozenset()
    derived: bool = False

    @property
    def total(self) -> int:
        """The number of all stored keys."""
        return sum(self.totals.values())


def load_health(*, since: datetime, now: datetime) -> KeyHealth:
    """Read the state of the keys in three queries.

    Args:
        since: past and revoked keys are included if they were retired or revoked after this time.
        now: the time at which tokens are counted as live.

    Raises:
        ConfigError: a setting is invalid.
    """
    live = live_tokens(now=now)
    revoked = Q(status=Key.Status.REVOKED)
    relevant = (
        Q(status__in=[Key.Status.FUTURE, Key.Status.CURRENT])
        | ~revoked & (~Q(sealed_private_jwk="") | Q(retired_at=None) | Q(retired_at__gte=since))
        | revoked & (Q(revoked_at__gte=since) | Q(kid__in=sorted(live)[:MAX_KEYS]))
    )
    rows = tuple(sorted(store.stored_keys().filter(relevant), key=_relevance)[:MAX_KEYS])
    used = [row for row in rows if row.status != Key.Status.REVOKED]
    return KeyHealth(
        keys=rows,
        totals=dict(store.stored_keys().order_by().values_list("use").annotate(count=Count("pk"))),
        live=live,
        undecryptable={kid: error.code for kid, error in provision.undecryptable(used).items()},
        modified=frozenset(row.kid for row in used if _is_modified(row)),
        derived=conf.key_encryption_keys_are_derived,
    )


def live_tokens(*, now: datetime) -> dict[str, int]:
    """Return a mapping from kid to the number of live tokens. Runs one query on the tokens of about one hour."""
    counts: Counter[str] = Counter()
    pairs = audit.live_tokens(now=now).order_by().values_list("signing_kid", "encryption_kid")
    for signing, encryption, count in pairs.annotate(count=Count("pk")):
        for kid in {signing, encryption} - {""}:
            counts[kid] += count
    return dict(counts)


def short_kid(kid: str) -> str:
    """Shorten a kid for display. The commands accept the short form."""
    return kid[:8]


def _is_modified(row: Key) -> bool:
    try:
        ring.public_key(row)
    except KeyUnavailable:
        return True
    return False


_RANK = {Key.Status.CURRENT: 0, Key.Status.FUTURE: 1, Key.Status.PAST: 2}


def _relevance(row: Key) -> tuple[int, float]:
    # Future keys are sorted oldest first, because the oldest future key becomes current next. Past and revoked keys
    # are sorted latest first.
    rank = _RANK.get(Key.Status(row.status), 3) if row.status in Key.Status else 4
    time = (row.created_at if rank < 2 else row.retired_at or row.revoked_at or row.created_at).timestamp()
    return rank, time if rank < 2 else -time
