"""How the keys stand: read in three queries, opened to see that they open.

Nothing here writes, and nothing here fails because a key is broken.
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
"""So many keys are looked at, the most useful first: each that is opened costs about a millisecond."""


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """How the keys stand.

    Attributes:
        keys: those in use and those of late, at most `MAX_KEYS`, the most useful first.
        totals: how many there are by use, with those that are long gone.
        live: tokens that are live now, by kid of either key.
        shut: why sealed private halves do not open, by kid: the `code` of an UnsealError.
        altered: kids whose public half is not the one they name.
        derived: whether private halves are sealed under a key derived from SECRET_KEY.
    """

    keys: tuple[Key, ...] = ()
    totals: Mapping[str, int] = field(default_factory=dict)
    live: Mapping[str, int] = field(default_factory=dict)
    undecryptable: Mapping[str, Reason] = field(default_factory=dict)
    modified: frozenset[str] = frozenset()
    derived: bool = False

    @property
    def total(self) -> int:
        """How many keys there are."""
        return sum(self.totals.values())


def load_health(*, since: datetime, now: datetime) -> KeyHealth:
    """Read how the keys stand: three queries. Past and revoked ones are of late when they ended after `since`.

    Raises ConfigError for a setting that can't be worked with.
    """
    live = live_tokens(now=now)
    revoked = Q(status=Key.Status.REVOKED)
    of_late = (
        Q(status__in=[Key.Status.FUTURE, Key.Status.CURRENT])
        | ~revoked & (~Q(sealed_private_jwk="") | Q(retired_at=None) | Q(retired_at__gte=since))
        | revoked & (Q(revoked_at__gte=since) | Q(kid__in=sorted(live)[:MAX_KEYS]))
    )
    rows = tuple(sorted(store.stored_keys().filter(of_late), key=_usefulness)[:MAX_KEYS])
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
    """How many tokens are live under each key, by kid: one query, over an hour of tokens at most."""
    counts: Counter[str] = Counter()
    pairs = audit.live_tokens(now=now).order_by().values_list("signing_kid", "encryption_kid")
    for signing, encryption, count in pairs.annotate(count=Count("pk")):
        for kid in {signing, encryption} - {""}:
            counts[kid] += count
    return dict(counts)


def short_kid(kid: str) -> str:
    """As much of a kid as people read and the commands take."""
    return kid[:8]


def _is_modified(row: Key) -> bool:
    try:
        ring.public_key(row)
    except KeyUnavailable:
        return True
    return False


_RANK = {Key.Status.CURRENT: 0, Key.Status.FUTURE: 1, Key.Status.PAST: 2}


def _usefulness(row: Key) -> tuple[int, float]:
    # The future key that waited longest is next; of those that are over, the latest are of interest.
    rank = _RANK.get(Key.Status(row.status), 3) if row.status in Key.Status else 4
    moment = (row.created_at if rank < 2 else row.retired_at or row.revoked_at or row.created_at).timestamp()
    return rank, moment if rank < 2 else -moment
