"""Counts that the threads of a process add to until somebody takes them away to be written down.

No Django here. What is counted must not cost memory without end: how many kinds an hour has is bounded, and how many
hours are waited for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import NamedTuple


class Kind(NamedTuple):
    """What was refused; they sort in the order in which they are written."""

    hour: int
    """Hours since the epoch."""
    role: str
    reason: str
    client_id: str
    user_uuid: str


class Tally:
    """Counts by kind.

    Args:
        kinds: how many different ones of an hour are told apart. What comes after them is counted without client and
            user, so that there are at most as many more as there are roles and reasons.
        hours: for so long counts wait to be taken; older ones are dropped.
    """

    def __init__(self, *, kinds: int, hours: int) -> None:
        self._limit = kinds
        self._hours = hours
        self.forget()
        # A lock that a thread of the parent held at the fork would never be released in the child. And what the
        # parent has counted is the parent's to write.
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Nothing was counted."""
        self._lock = threading.Lock()
        self._hour = 0
        self._seen: set[Kind] = set()
        self._counts: dict[Kind, int] = {}

    def __bool__(self) -> bool:
        """Whether anything waits to be taken."""
        return bool(self._counts)

    def add(self, kind: Kind) -> None:
        """One more of a kind."""
        with self._lock:
            if kind.hour != self._hour:
                self._begin(kind.hour)
            if kind not in self._seen:
                if len(self._seen) < self._limit:
                    # Remembered for the whole hour: else as many new ones could come after each taking.
                    self._seen.add(kind)
                else:
                    kind = kind._replace(client_id="", user_uuid="")
            self._counts[kind] = self._counts.get(kind, 0) + 1

    def take(self) -> dict[Kind, int]:
        """All counts, which are the caller's from now on."""
        with self._lock:
            counts, self._counts = self._counts, {}
            return counts

    def put_back(self, counts: Mapping[Kind, int]) -> None:
        """They could not be written: count on from them."""
        with self._lock:
            for kind, number in counts.items():
                self._counts[kind] = self._counts.get(kind, 0) + number

    def _begin(self, hour: int) -> None:
        self._hour = hour
        self._seen.clear()
        self._counts = {kind: number for kind, number in self._counts.items() if kind.hour > hour - self._hours}
