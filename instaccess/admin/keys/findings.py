"""What is overdue, missing or unsafe about the keys, in words that say what to do: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ...audit import RefusalSpike
from ...exceptions import ConfigError, Reason
from ...keys import KeyHealth, Times, decide, is_gone, is_next, served_at, short_kid
from ...models import Key, RefusalCount

GRACE = timedelta(days=1)
"""How long something may be due: cron runs daily."""

_ROTATE = "python manage.py instaccess_keys rotate"
_MAX_NAMED = 5


class Severity(IntEnum):
    """How bad it is; the worst comes first."""

    ERROR = 0
    WARNING = 1
    NOTE = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that somebody should see to.

    Attributes:
        code: stable name of this kind of finding.
        text: what is the matter.
        remedy: what to do.
        command: what to type for it; empty where there is nothing to type.
    """

    code: str
    severity: Severity
    text: str
    remedy: str
    command: str = ""


def findings(
    standing: KeyHealth, *, now: datetime, times: Times, unusual: Iterable[RefusalSpike] = ()
) -> list[Finding]:
    """What is wrong with the keys, and which refusals are unusual; the worst first."""
    found: list[Finding] = []
    if not standing.total:
        found.append(_no_keys())
    for use in Key.Use if standing.total else ():
        found += _of_use(use, standing, now, times)
    found += _broken(standing)
    found += _left_over(standing, now, times)
    if standing.total and standing.derived:
        found.append(_derived())
    found += [_unusual(refusals) for refusals in unusual]
    return sorted(found, key=lambda finding: finding.severity)


def bad_setting(error: ConfigError) -> Finding:
    """Of a setting without which nothing can be said about keys."""
    return Finding(
        "bad_setting",
        Severity.ERROR,
        _("A setting is wrong, and no token is issued meanwhile: %(reason)s.") % {"reason": error.detail},
        _("Correct it. This looks over all settings:"),
        "python manage.py check",
    )


def _no_keys() -> Finding:
    return Finding(
        "no_keys",
        Severity.ERROR,
        _("There are no keys yet: no token can be issued."),
        _("Make the keys that a deployment starts with:"),
        "python manage.py instaccess_init",
    )


def _of_use(use: Key.Use, standing: KeyHealth, now: datetime, times: Times) -> Iterator[Finding]:
    keys = [key for key in standing.keys if key.use == use]
    current = next((key for key in keys if key.status == Key.Status.CURRENT), None)
    if current is None:
        yield _no_current(use, is_first=not standing.totals.get(use))
        return
    decision = decide(keys, use=use, now=now, times=times)
    if use == Key.Use.SIGNING and not current.has_private:
        yield Finding(
            "cannot_sign",
            Severity.ERROR,
            _("Only the public half of the current signing key %(kid)s is held: no token can be issued.")
            % {"kid": short_kid(current.kid)},
            _("Make another key with both halves if there is none, and make it current:"),
            "python manage.py instaccess_keys activate --kid …",
        )
    elif use == Key.Use.SIGNING and decision.make_future and decision.activate is None:
        yield Finding(
            "no_future_signing",
            Severity.WARNING,
            _("There is no future signing key: should the current one be revoked, services would not know the next."),
            _("“Generate…” makes one, and so does:"),
            "python manage.py instaccess_keys rotate",
        )
    if use == Key.Use.ENCRYPTION and (idle := [key for key in keys if _is_idle(key, keys)]):
        yield Finding(
            "idle_encryption",
            Severity.NOTE,
            _("Never current by themselves, for the gateway whose public key is current lacks them: %(keys)s.")
            % {"keys": _named(idle)},
            _("Revoke what is not needed, or make it current once the gateway has its private half:"),
            f"python manage.py instaccess_keys revoke --kid {idle[0].kid}",
        )
    served = served_at(current, times)
    if served is not None and now - served >= GRACE:
        yield _overdue(current, (now - served).days, is_ours=current.has_private or decision.activate is not None)


def _is_idle(key: Key, keys: list[Key]) -> bool:
    return key.status == Key.Status.FUTURE and not is_next(key, keys)


def _no_current(use: Key.Use, *, is_first: bool) -> Finding:
    text = _("There is no current %(use)s key: no token can be issued.") % {"use": use.label}
    if use == Key.Use.SIGNING or is_first:
        return Finding(
            "no_current", Severity.ERROR, text, _("Make what is missing:"), "python manage.py instaccess_init"
        )
    # `instaccess_init` refuses here: the private half may be a gateway's, which could not open what follows.
    return Finding(
        "no_current",
        Severity.ERROR,
        text,
        _("Import the gateway's public key, or generate one here, and make it current:"),
        "python manage.py instaccess_keys activate --kid …",
    )


def _overdue(current: Key, days: int, *, is_ours: bool) -> Finding:
    text = ngettext(
        "The %(use)s key %(kid)s is overdue for rotation by %(days)d day.",
        "The %(use)s key %(kid)s is overdue for rotation by %(days)d days.",
        days,
    ) % {"use": current.get_use_display(), "kid": short_kid(current.kid), "days": days}
    if not is_ours:
        return Finding(
            "overdue",
            Severity.WARNING,
            text,
            _("Its private half is elsewhere: import the next public key from its owner, and make it current:"),
            "python manage.py instaccess_keys activate --kid …",
        )
    return Finding(
        "overdue",
        Severity.WARNING,
        text,
        _("Rotate it with the button above or with this command, and let cron run it daily:"),
        f"{_ROTATE} --use {current.use}",
    )


def _broken(standing: KeyHealth) -> Iterator[Finding]:
    lost = [key for key in standing.keys if standing.undecryptable.get(key.kid) is Reason.KEK_MISSING]
    if lost:
        yield Finding(
            "kek_missing",
            Severity.ERROR,
            _("Private halves are sealed under a key-encryption key that is not configured: %(keys)s.")
            % {"keys": _named(lost)},
            _(
                "Put it back into INSTACCESS['KEY_ENCRYPTION_KEYS'], or the old SECRET_KEY into "
                "SECRET_KEY_FALLBACKS. Then see that all is well:"
            ),
            "python manage.py check --database default",
        )
    for text, code, broken in (
        (
            _("Private halves do not open because their rows were altered: %(keys)s."),
            "seal_broken",
            [
                key
                for key in standing.keys
                if standing.undecryptable.get(key.kid, Reason.KEK_MISSING) is not Reason.KEK_MISSING
            ],
        ),
        (
            _("Public halves were altered, and are not used any more: %(keys)s."),
            "public_altered",
            [key for key in standing.keys if key.kid in standing.modified],
        ),
    ):
        if broken:
            yield Finding(
                code,
                Severity.ERROR,
                text % {"keys": _named(broken)},
                _("Restore the rows from a backup, or revoke the keys, and find out who wrote to the database."),
            )


def _left_over(standing: KeyHealth, now: datetime, times: Times) -> Iterator[Finding]:
    for code, text, keys in (
        (
            "not_erased",
            _("Private halves are still held though the last token under them is dead: %(keys)s."),
            [key for key in standing.keys if key.has_private and is_gone(key, now=now - GRACE, times=times)],
        ),
        (
            "revoked_with_live_tokens",
            _("Tokens under revoked keys still stand as live in the audit (everybody refuses them): %(keys)s."),
            [key for key in standing.keys if key.status == Key.Status.REVOKED and standing.live.get(key.kid)],
        ),
    ):
        if keys:
            remedy = _("This puts it right; let cron run it daily:")
            yield Finding(code, Severity.WARNING, text % {"keys": _named(keys)}, remedy, _ROTATE)


def _derived() -> Finding:
    return Finding(
        "kek_derived",
        Severity.NOTE,
        _("Private keys are sealed under a key derived from SECRET_KEY: who learns one has both."),
        _("In production, give INSTACCESS['KEY_ENCRYPTION_KEYS'] one of its own, made by:"),
        'python -c "import secrets; print(secrets.token_urlsafe(32))"',
    )


def _unusual(refusals: RefusalSpike) -> Finding:
    text = (
        _("Within an hour the %(role)s refused %(count)d requests for “%(reason)s”; usually it is about %(usual)d.")
        if round(refusals.usual)
        else _("Within an hour the %(role)s refused %(count)d requests for “%(reason)s”; usually it is none.")
    )
    return Finding(
        "unusual_refusals",
        Severity.WARNING,
        text
        % {
            "count": refusals.count,
            "role": RefusalCount.Role(refusals.role).label if refusals.role in RefusalCount.Role else refusals.role,
            "reason": refusals.reason,
            "usual": round(refusals.usual),
        },
        _("The log says who was refused, the README what the reason means and what helps."),
    )


def _named(keys: list[Key]) -> str:
    names = [
        f"{short_kid(key.kid)} ({key.get_use_display()}, {key.get_status_display()})" for key in keys[:_MAX_NAMED]
    ]
    return ", ".join(names) + (", …" if len(keys) > _MAX_NAMED else "")
