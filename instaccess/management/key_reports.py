"""What `manage.py instaccess_keys` says of keys: facts for `--json`, and the same in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils import timezone

from .. import keys
from ..models import Key
from .base import iso


def facts(key: Key, held: Iterable[Key] | None = None) -> dict[str, Any]:
    """`held` are all keys, where the caller has them at hand."""
    return {
        "kid": key.kid,
        "use": str(key.use),
        "status": str(key.status),
        "private": key.has_private,
        "created_at": iso(key.created_at),
        "activated_at": iso(key.activated_at),
        "retired_at": iso(key.retired_at),
        "revoked_at": iso(key.revoked_at),
        "next": next_step(key, held),
    }


def next_step(key: Key, held: Iterable[Key] | None = None) -> str:
    times, now, use = keys.lifecycle_times(), timezone.now(), Key.Use(key.use)
    held = keys.stored_keys() if held is None else held
    match key.status:
        case Key.Status.FUTURE:
            if not keys.is_next(key, held):
                return (
                    "only its public half is held here: it can't sign"
                    if use == Key.Use.SIGNING
                    else "does not take over by itself: the gateway's keys come from their owner"
                )
            ready = keys.ready_at(key, times)
            return "ready to take over" if ready <= now else f"ready to take over at {iso(ready)}"
        case Key.Status.CURRENT if served := keys.served_at(key, times):
            decision = keys.decide(held, use=use, now=now, times=times)
            if decision.activate is None and decision.next_due is None:
                return "the next one comes from its owner (import it)"
            return f"due for rotation at {iso(served)}"
        case Key.Status.PAST:
            gone = keys.gone_at(key, times)
            return "gone" if gone is None or gone <= now else f"valid for its tokens until {iso(gone)}"
    return f"revoked at {iso(key.revoked_at)}"


def outcome_facts(outcome: keys.Rotation) -> dict[str, Any]:
    return {
        "use": str(outcome.use),
        "retired": outcome.retired.kid if outcome.retired else None,
        "activated": outcome.activated.kid if outcome.activated else None,
        "made": outcome.generated.kid if outcome.generated else None,
        "erased": [key.kid for key in outcome.erased],
        "lost_race": outcome.lost_race,
        "next_due": iso(outcome.next_due),
    }


def rotation_messages(outcome: keys.Rotation) -> list[str]:
    lines = []
    if outcome.lost_race:
        lines.append("somebody else rotated at the same moment; nothing was done here.")
    if outcome.activated and outcome.retired:
        lines.append(f"key {outcome.activated.kid} is current now, after {outcome.retired.kid}.")
    if outcome.generated:
        lines.append(f"made the future key {outcome.generated.kid}.")
        if outcome.use == Key.Use.ENCRYPTION:
            lines.append(
                "a gateway that does not share this database needs its private half before it takes over: "
                f"`python manage.py instaccess_keys export --private --kid {outcome.generated.kid}`"
            )
    lines += [f"erased the private half of key {key.kid}: its last token is dead." for key in outcome.erased]
    if not lines:
        lines.append("nothing was due.")
    if outcome.next_due:
        lines.append(f"the next rotation is due at {iso(outcome.next_due)}.")
    else:
        lines.append("no rotation is due: there is no future key, and the next one comes from its owner (import it).")
    return lines


def imported(key: Key) -> str:
    """What an import did, and how to go on."""
    halves = "both halves" if key.has_private else "public half"
    text = f"Imported the {key.get_use_display()} key {key.kid}, {halves}; {next_step(key)}."
    if key.use == Key.Use.SIGNING and not key.has_private:
        return text
    command = f"python manage.py instaccess_keys activate --kid {key.kid}"
    if keys.ready_at(key, keys.lifecycle_times()) > timezone.now():
        return f"{text} Before that, at the price of services that may refuse its tokens: `{command} --force`"
    if key.has_private:
        return f"{text} Use it now: `{command}`"
    return f"{text} As soon as its gateway has the private half, and before `rotate` finds it due: `{command}`"


def activated(key: Key) -> list[str]:
    """What an activation did, and what does not go on by itself any more."""
    lines = [f"Key {key.kid} is the current {key.get_use_display()} key now."]
    if key.use == Key.Use.SIGNING or key.has_private:
        return lines
    lines.append(
        "Only the gateway that has its private half can open new tokens; one that reads this database can't."
    )
    lines += [
        f"The future key {other.kid} was made here and does not take over by itself any more; if it is not needed: "
        f"`python manage.py instaccess_keys revoke --kid {other.kid}`"
        for other in keys.future_keys(keys.stored_keys(), Key.Use.ENCRYPTION)
        if not keys.can_rotate_automatically(other, previous_has_private=False)
    ]
    return lines
