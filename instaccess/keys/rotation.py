"""Decisions about the key lifecycle (`future → current → past → gone`), computed only from keys and times.

A past key is *gone* when its retention has passed, because all tokens of the key have then expired. A key that is
gone is no longer published or accepted, and its private key is erased.

This module doesn't read the clock, the settings or the database. `lifecycle.py` applies the decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..models import Key

ACCEPTED = (Key.Status.CURRENT, Key.Status.PAST, Key.Status.FUTURE)
"""The statuses of keys whose tokens may be accepted, in the order in which the keys are tried."""


@dataclass(frozen=True, slots=True)
class Times:
    """The durations of the key lifecycle.

    Attributes:
        interval: the time for which a key is current.
        lead: the time for which a future key is published before the key may become current.
        retention: the time for which a past key is accepted.
    """

    interval: timedelta
    lead: timedelta
    retention: timedelta


@dataclass(frozen=True, slots=True)
class Decision:
    """The changes that are due for the signing keys or the encryption keys.

    Attributes:
        retire, activate: the previous and the new current key; both None if no change is due.
        make_future: whether a new future key must be generated after the change.
        erase: past keys that are gone and whose private keys must be erased.
        next_due: the time when the current key is next due to be replaced, after these changes have been applied.
            None if no key can replace the current key.
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
    """Decide which changes are due for the signing keys or the encryption keys at `now`.

    The current key is due to be replaced when both its interval and the future key's lead time have passed. If there
    is no current key, no key is generated or activated. The operator must then run `instaccess_init` or activate a
    key.

    Args:
        keys: all keys. Only the keys with this `use` count.
        use: whether to plan changes to the signing keys or to the encryption keys.
        force: change the current key now, even if its interval or the future key's lead time has not passed.
    """
    same_use = [key for key in keys if key.use == use]
    erase = tuple(key for key in same_use if key.has_private and is_gone(key, now=now, times=times))
    current = next((key for key in same_use if key.status == Key.Status.CURRENT), None)
    served = served_at(current, times) if current else None
    if current is None or served is None:
        return Decision(use, None, None, False, erase, None)
    future = sorted(
        (key for key in same_use if key.status == Key.Status.FUTURE),
        # Two keys that are stored in the same millisecond become ready at the same time. The order of such keys must
        # be the order in which `queries.future_keys` returns the keys.
        key=lambda key: (ready_at(key, times), key.pk or math.inf),
    )
    waiting = [key for key in future if can_rotate_automatically(key, previous_has_private=current.has_private)]
    due = max(served, ready_at(waiting[0], times)) if waiting else None
    rotates = due is not None and (force or now >= due)

    # From here on, `successor` is the key that is current after these changes: the new current key, or the unchanged
    # current key if no rotation is due.
    successor = waiting[0] if rotates else current
    remaining = [
        key
        for key in future
        if key != successor and can_rotate_automatically(key, previous_has_private=successor.has_private)
    ]
    # Don't generate a key if the current key is an imported public key. The owner of the private key must send the
    # next public key.
    make_future = not remaining and successor.has_private
    if remaining or make_future:
        next_ready = ready_at(remaining[0], times) if remaining else now + times.lead
        due = max(now + times.interval if rotates else served, next_ready)
    else:
        due = None
    return Decision(use, current if rotates else None, successor if rotates else None, make_future, erase, due)


def forecast(keys: Iterable[Key], *, now: datetime, times: Times, until: datetime) -> list[Key]:
    """Predict the statuses and times of keys at `until`, if each rotation from `now` on happens on time.

    Nothing is stored. The prediction takes into account the keys that the rotations would generate.

    Returns:
        Copies of the given keys in the same order, with the predicted statuses and times. Keys that the rotations
        would generate are not returned.
    """
    predicted = [copy(key) for key in keys]
    for use in Key.Use:
        same_use, then = [key for key in predicted if key.use == use], now
        while then <= until:
            decision = decide(same_use, use=use, now=then, times=times)
            if decision.activate:
                hand_over(decision.retire, decision.activate, now=then)
            if decision.make_future:
                same_use.append(
                    Key(use=use, status=Key.Status.FUTURE, created_at=then, sealed_private_jwk="predicted")
                )
            if decision.next_due is None:
                break
            then = decision.next_due
    return predicted


def hand_over(retired: Key | None, activated: Key, *, now: datetime) -> None:
    """Set the statuses and times of the retired and the activated key. Nothing is stored."""
    if retired is not None:
        retired.status, retired.retired_at = Key.Status.PAST, now
    activated.status, activated.activated_at = Key.Status.CURRENT, now


def can_rotate_automatically(key: Key, *, previous_has_private: bool) -> bool:
    """Return whether a rotation may make a future key current, without an activation by an operator.

    A signing key without its private key can't sign. The current encryption key may be the public key of a gateway. A
    key pair that this server generated must not replace this key, because the gateway lacks the new private key.

    Args:
        previous_has_private: whether the private key of the current key is stored on this server.
    """
    if key.use == Key.Use.SIGNING:
        return key.has_private
    return previous_has_private or not key.has_private


def is_next(key: Key, keys: Iterable[Key]) -> bool:
    """Return whether a rotation may make a future key current, if the current key doesn't change before the rotation.

    Args:
        keys: all stored keys.
    """
    current = next((other for other in keys if other.use == key.use and other.status == Key.Status.CURRENT), None)
    return can_rotate_automatically(key, previous_has_private=current is None or current.has_private)


def served_at(key: Key, times: Times) -> datetime | None:
    """Return the time when the interval of a current key ends.

    Returns None if the key is not current, or if the time of activation is missing.
    """
    if key.status != Key.Status.CURRENT or key.activated_at is None:
        return None
    return key.activated_at + times.interval


def ready_at(key: Key, times: Times) -> datetime:
    """Return the time from which a future key may become current: the end of its lead time.

    An imported public encryption key needs no lead time, because its owner already has the private key.
    """
    if key.use == Key.Use.ENCRYPTION and not key.has_private:
        return key.created_at
    return key.created_at + times.lead


def is_ready(key: Key, *, now: datetime, times: Times) -> bool:
    """Return whether a future key's lead time has passed."""
    return now >= ready_at(key, times)


def gone_at(key: Key, times: Times) -> datetime | None:
    """Return the time when the retention of a past key ends. All tokens of the key have expired before this time.

    Returns None if the key is not a past key, or if the retirement time is missing.
    """
    if key.status != Key.Status.PAST or key.retired_at is None:
        return None
    return key.retired_at + times.retention


def is_gone(key: Key, *, now: datetime, times: Times) -> bool:
    """Return whether a key is a past key whose retention has passed. All tokens of such a key have expired."""
    end = gone_at(key, times)
    return end is not None and now >= end


def is_accepted(key: Key, *, now: datetime, times: Times) -> bool:
    """Return whether tokens of a key may be accepted. Accepted signing keys are also published."""
    return key.status in ACCEPTED and not is_gone(key, now=now, times=times)
