"""When one key follows another: a pure decision on timestamps (`future → current → past → gone`).

Nothing here reads a clock, a setting or the database. `lifecycle.py` carries a decision out.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..models import Key


@dataclass(frozen=True, slots=True)
class Times:
    """How long a key is current, is published before that, and stays valid after it."""

    interval: timedelta
    lead: timedelta
    retention: timedelta


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with the keys of one use.

    Attributes:
        retire, activate: the change of current key; both None when it is not time.
        make_future: whether a new future key is wanted afterwards.
        erase: past keys whose last token is dead: their private half goes.
        next_due: when, all this done, the next change of current key is due; None when there is nothing to change to.
    """

    use: Key.Use
    retire: Key | None
    activate: Key | None
    make_future: bool
    erase: tuple[Key, ...]
    next_due: datetime | None

    @property
    def nothing_to_do(self) -> bool:
        return not (self.activate or self.make_future or self.erase)


def decide(keys: Iterable[Key], *, use: Key.Use, now: datetime, times: Times, force: bool = False) -> Decision:
    """What is due for one use at `now`.

    A change is due when the current key has served its interval and the future key its lead time. `force` makes it
    due at once, whatever the two say. Without a current key nothing is made up: that is for `instaccess_init`.
    """
    mine = [key for key in keys if key.use == use]
    erase = tuple(key for key in mine if key.has_private and is_gone(key, now=now, times=times))
    current = next((key for key in mine if key.status == Key.Status.CURRENT), None)
    served = served_at(current, times) if current else None
    if current is None or served is None:
        return Decision(use, None, None, False, erase, None)
    future = sorted((key for key in mine if key.status == Key.Status.FUTURE), key=lambda key: ready_at(key, times))
    waiting = [key for key in future if can_rotate_automatically(key, previous_has_private=current.has_private)]
    due = max(served, ready_at(waiting[0], times)) if waiting else None
    rotates = due is not None and (force or now >= due)

    # How things stand afterwards.
    successor = waiting[0] if rotates else current
    remaining = [
        key
        for key in future
        if key != successor and can_rotate_automatically(key, previous_has_private=successor.has_private)
    ]
    # Who imported a public half gets the next one from its owner too: there is nothing to generate.
    make_future = not remaining and successor.has_private
    if remaining or make_future:
        following = ready_at(remaining[0], times) if remaining else now + times.lead
        due = max(now + times.interval if rotates else served, following)
    else:
        due = None
    return Decision(use, current if rotates else None, successor if rotates else None, make_future, erase, due)


def forecast(keys: Iterable[Key], *, now: datetime, times: Times, until: datetime) -> list[Key]:
    """The keys as they will stand at `until` if what is due is done the moment it is due, from `now` on.

    Copies with their times filled in, in the order given; nothing is stored. Keys that are yet to be made are thought
    of, and left out.
    """
    given = [copy(key) for key in keys]
    for use in Key.Use:
        mine, then = [key for key in given if key.use == use], now
        while then <= until:
            decision = decide(mine, use=use, now=then, times=times)
            if decision.retire and decision.activate:
                decision.retire.status, decision.retire.retired_at = Key.Status.PAST, then
                decision.activate.status, decision.activate.activated_at = Key.Status.CURRENT, then
            if decision.make_future:
                mine.append(
                    Key(use=use, status=Key.Status.FUTURE, created_at=then, sealed_private_jwk="not made yet")
                )
            if decision.next_due is None:
                break
            then = decision.next_due
    return given


def can_rotate_automatically(key: Key, *, previous_has_private: bool) -> bool:
    """Whether a future key may become current without anybody saying so. `previous_has_private`: the private half of the key
    before it is held here.

    A public signing key cannot sign. Where the private half of an encryption key is a gateway's, that gateway would
    not have the one of a key that was made here: what is encrypted under it, nobody could open.
    """
    if key.use == Key.Use.SIGNING:
        return key.has_private
    return previous_has_private or not key.has_private


def is_next(key: Key, keys: Iterable[Key]) -> bool:
    """Whether a future key waits to take over from the current one of its use, by what these keys are now."""
    current = next((other for other in keys if other.use == key.use and other.status == Key.Status.CURRENT), None)
    return can_rotate_automatically(key, previous_has_private=current is None or current.has_private)


def served_at(key: Key, times: Times) -> datetime | None:
    """When a current key has served its interval; None for a key that is not current."""
    if key.status != Key.Status.CURRENT or key.activated_at is None:
        return None
    return key.activated_at + times.interval


def ready_at(key: Key, times: Times) -> datetime:
    """When a future key may be used: its lead time after it was made.

    A public encryption key came from its owner, who can open what is encrypted under it since before we had it.
    """
    if key.use == Key.Use.ENCRYPTION and not key.has_private:
        return key.created_at
    return key.created_at + times.lead


def is_ready(key: Key, *, now: datetime, times: Times) -> bool:
    """Return whether a future key's lead time has passed."""
    return now >= ready_at(key, times)


def gone_at(key: Key, times: Times) -> datetime | None:
    """When the last token under a past key is dead; None for a key that is not past."""
    if key.status != Key.Status.PAST or key.retired_at is None:
        return None
    return key.retired_at + times.retention


def is_gone(key: Key, *, now: datetime, times: Times) -> bool:
    """Whether a past key's last token is dead."""
    end = gone_at(key, times)
    return end is not None and now >= end
