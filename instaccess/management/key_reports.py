"""The output of `manage.py instaccess_keys`: dictionaries for `--json`, and sentences for operators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import keys
from ..exceptions import ConfigError
from ..models import Key
from .base import iso

_FACTS = (
    *("kid", "use", "status", "private", "created_at", "activated_at", "retired_at", "revoked_at"),
    *("problem", "next"),
)


def facts(key: Key, all_keys: Iterable[Key] | None = None) -> dict[str, Any]:
    """Return the members that `--json` prints for a key.

    Args:
        all_keys: all authentic keys. By default, the function reads the keys from the database.
    """
    problem = keys.problem(key)
    return {
        "kid": str(key.kid),
        "use": str(key.use),
        "status": str(key.status),
        "private": key.has_private,
        "created_at": iso(key.created_at),
        "activated_at": iso(key.activated_at),
        "retired_at": iso(key.retired_at),
        "revoked_at": iso(key.revoked_at),
        "problem": str(problem.code) if problem else None,
        "next": f"not used: {problem.detail}" if problem else next_step(key, all_keys),
    }


def all_facts() -> list[dict[str, Any]]:
    """Return the members that `list --json` prints for each stored key, including keys whose rows were modified."""
    try:
        rows, errors = keys.examine()
    except ConfigError:  # Even if the settings are invalid, an operator needs the key ids to revoke a key.
        rows, errors = list(keys.stored_keys()), {}
    authentic = [row for row in rows if row.pk not in errors]
    described = [facts(row, authentic) for row in rows]
    for pk in errors.keys() - {row.pk for row in rows}:  # List the rows that can't be read too.
        described.append(
            dict.fromkeys(_FACTS) | {"problem": str(errors[pk].code), "next": f"not used: {errors[pk].detail}"}
        )
    return described


def printable(value: str | None) -> str:
    """Return a value from the table of keys in a form that is safe to print to a terminal.

    An attacker who can write to the table can store any value, and some terminals interpret control characters as
    commands. Returns "?" for None.
    """
    if value is None:
        return "?"
    return value if value.isprintable() else ascii(value)


def next_step(key: Key, all_keys: Iterable[Key] | None = None) -> str:
    """Describe the next step in the lifecycle of a key, without a period at the end."""
    times, now, use = keys.lifecycle_times(), keys.current_time(), Key.Use(key.use)
    all_keys = keys.authentic_keys() if all_keys is None else all_keys
    match key.status:
        case Key.Status.FUTURE:
            if not keys.is_next(key, all_keys):
                return (
                    "can't sign, because only its public key is stored on this server"
                    if use == Key.Use.SIGNING
                    else "does not become current automatically, because the gateway lacks its private key"
                )
            if keys.is_ready(key, now=now, times=times):
                return "ready to become current"
            return f"ready to become current at {iso(keys.ready_at(key, times))}"
        case Key.Status.CURRENT if served := keys.served_at(key, times):
            decision = keys.decide(all_keys, use=use, now=now, times=times)
            if decision.activate is None and decision.next_due is None:
                return "import the next public key from the owner of the private key"
            return f"due for rotation at {iso(served)}"
        case Key.Status.PAST:
            if keys.is_gone(key, now=now, times=times):
                return "no longer used: its last token has expired"
            gone = keys.gone_at(key, times)
            return (
                f"its tokens are accepted until {iso(gone)}"
                if gone
                else "its tokens are accepted without a time limit, because the retirement time is missing"
            )
    return f"revoked at {iso(key.revoked_at)}"


def outcome_facts(outcome: keys.Rotation) -> dict[str, Any]:
    """Return the members that `rotate --json` prints for one key use."""
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
    """Return the sentences that `rotate` prints for one key use, one per line."""
    lines = []
    if outcome.lost_race:
        lines.append("nothing was changed, because another process rotated the key at the same time.")
    if outcome.activated and outcome.retired:
        lines.append(f"key {outcome.activated.kid} is now current; key {outcome.retired.kid} is past.")
    if outcome.generated:
        lines.append(f"generated the future key {outcome.generated.kid}.")
        if outcome.use == Key.Use.ENCRYPTION:
            lines.append(
                "before the key becomes current, give its private key to each gateway that does not share this "
                "database. To export the private key, run `python manage.py instaccess_keys export --private --kid "
                f"{outcome.generated.kid}`."
            )
    lines += [
        f"erased the private key of key {key.kid}, because its last token has expired." for key in outcome.erased
    ]
    if not lines:
        lines.append("nothing was due.")
    if outcome.next_due:
        lines.append(f"the next rotation is due at {iso(outcome.next_due)}.")
    else:
        lines.append(
            "no rotation is planned, because no future key can become current automatically. Import the next public "
            "key from the owner of the private key."
        )
    return lines


def after_revocation(key: Key) -> list[str]:
    """Return sentences about when gateways refuse the tokens of a revoked key, and about the remaining work."""
    return ["Gateways refuse the tokens within 5 seconds.", *map(str, keys.remaining_work(key.use))]


def imported(key: Key) -> str:
    """Return the sentences that `import` prints, with the command that activates the key."""
    parts = "public and private key" if key.has_private else "public key only"
    text = f"Imported the {key.get_use_display()} key {key.kid} ({parts}); {next_step(key)}."
    if key.use == Key.Use.SIGNING and not key.has_private:
        return text
    command = f"python manage.py instaccess_keys activate --kid {key.kid}"
    if not keys.is_ready(key, now=keys.current_time(), times=keys.lifecycle_times()):
        return f"{text} To use the key earlier, although services may refuse its tokens, run `{command} --force`."
    if key.has_private:
        return f"{text} To use the key now, run `{command}`."
    return (
        f"{text} Make sure that the gateway has the private key before `rotate` makes the key current. To make the "
        f"key current now, run `{command}`."
    )


def activated(key: Key) -> list[str]:
    """Return the sentences that `activate` prints, with the keys that no longer become current automatically."""
    lines = [f"Key {key.kid} is now the current {key.get_use_display()} key."]
    if key.use == Key.Use.SIGNING or key.has_private:
        return lines
    lines.append(
        "Only the gateway that has the private key can decrypt new tokens; a gateway that reads its keys from this "
        "database can't decrypt new tokens."
    )
    lines += [
        f"The future key {other.kid} was generated here and no longer becomes current automatically. If you don't "
        f"need this key, run `python manage.py instaccess_keys revoke --kid {other.kid}` to revoke the key."
        for other in keys.future_keys(keys.stored_keys(), Key.Use.ENCRYPTION)
        if not keys.can_rotate_automatically(other, previous_has_private=False)
    ]
    return lines
