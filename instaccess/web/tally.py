"""Counters in memory that the threads of a process share.

The number of kinds per hour and the number of hours are limited, so that a flood of refusals can't exhaust memory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import NamedTuple


class Kind(NamedTuple):
    """The properties that distinguish refusals in the counts.

    Counts are written in the sort order of their kinds, so that concurrent writers don't deadlock.
    """

    hour: int
    """The number of whole hours since 1970, in UTC."""
    role: str
    reason: str
    client_id: str
    user_uuid: str


class Tally:
    """Counters by kind. No count is lost if several threads count at the same time.

    Args:
        kinds: the maximum number of kinds that are distinguished per hour. A refusal of any further kind is counted
            without client and user, so these refusals add at most one kind per role and reason.
        hours: the maximum number of hours for which counts are kept if `take` is not called. Older counts are
            discarded.
    """

    def __init__(self, *, kinds: int, hours: int) -> None:
        self._limit = kinds
        self._hours = hours
        self.forget()
        # If a thread of the parent holds the lock during a fork, the child can never acquire the lock. The child
        # therefore gets a new lock. The child discards the counts, because the parent writes the counts.
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Discard all counts."""
        self._lock = threading.Lock()
        self._hour: int | None = None
        self._seen: set[Kind] = set()
        self._counts: dict[Kind, int] = {}

    def __bool__(self) -> bool:
        """Return whether any counts are pending."""
        return bool(self._counts)

    def add(self, kind: Kind) -> None:
        """Add one to the count of a kind."""
        with self._lock:
            if kind.hour != self._hour:
                self._start_hour(kind.hour)
            if kind not in self._seen:
                if len(self._seen) < self._limit:
                    # `take` does not clear this set, because each call of `take` would then allow the full number of
                    # kinds again.
                    self._seen.add(kind)
                else:
                    kind = kind._replace(client_id="", user_uuid="")
            self._counts[kind] = self._counts.get(kind, 0) + 1

    def take(self) -> dict[Kind, int]:
        """Return all counts, and start again from zero."""
        with self._lock:
            counts, self._counts = self._counts, {}
            return counts

    def put_back(self, counts: Mapping[Kind, int]) -> None:
        """Add the counts that `take` returned to the current counts.

        Call this method if the counts could not be written to the database.
        """
        with self._lock:
            for kind, number in counts.items():
                self._counts[kind] = self._counts.get(kind, 0) + number

    def _start_hour(self, hour: int) -> None:
        self._hour = hour
        self._seen.clear()
        self._counts = {kind: number for kind, number in self._counts.items() if kind.hour > hour - self._hours}
