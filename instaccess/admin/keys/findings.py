"""The problems with keys that the key change list shows, with a fix for each problem.

Examples are overdue, missing and unsafe keys. This module reads neither the clock nor the database.
"""

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
"""The delay before an overdue change is reported. A shorter delay would cause warnings despite a daily cron job."""

_ROTATE = "python manage.py instaccess_keys rotate"
_ACTIVATE = "python manage.py instaccess_keys activate --kid …"
_INIT = "python manage.py instaccess_init"
_MAX_NAMED = 5


class Severity(IntEnum):
    """The severity of a problem. The key change list shows the most severe problems first."""

    ERROR = 0
    WARNING = 1
    NOTE = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem that the key change list shows to operators.

    Attributes:
        code: the stable name of this kind of problem.
        severity: the severity, which determines the order of the problems.
        text: a description of the problem.
        fix: the instructions for the operator.
        command: the command that the operator should run, or an empty string if no command helps.
    """

    code: str
    severity: Severity
    text: str
    fix: str
    command: str = ""


def find_problems(
    health: KeyHealth, *, now: datetime, times: Times, spikes: Iterable[RefusalSpike] = ()
) -> list[Problem]:
    """Return the problems with keys and the refusal spikes, the most severe problem first."""
    problems: list[Problem] = []
    if health.altered or health.unreadable:
        problems.append(_altered_rows(health))
    if not health.total and not health.unreadable:
        problems.append(_no_keys())
    for use in Key.Use if health.total else ():
        problems += _check_use(use, health, now, times)
    problems += _find_unusable(health)
    problems += _find_overdue_changes(health, now, times)
    if health.total and health.derived:
        problems.append(_derived_key())
    problems += [_describe_spike(spike) for spike in spikes]
    return sorted(problems, key=lambda problem: problem.severity)


def bad_setting(error: ConfigError) -> Problem:
    """Return the problem that reports an invalid setting. Until the setting is corrected, keys can't be checked."""
    return Problem(
        "bad_setting",
        Severity.ERROR,
        _("A setting is invalid, so no tokens can be issued: %(reason)s.") % {"reason": error.detail},
        _("Correct the setting. This command checks all settings:"),
        "python manage.py check",
    )


def _no_keys() -> Problem:
    text = _("There are no keys yet, so no tokens can be issued.")
    return Problem("no_keys", Severity.ERROR, text, _("Generate the first keys:"), _INIT)


def _check_use(use: Key.Use, health: KeyHealth, now: datetime, times: Times) -> Iterator[Problem]:
    keys = [key for key in health.keys if key.use == use]
    current = next((key for key in keys if key.status == Key.Status.CURRENT), None)
    if current is None:
        yield _no_current(use, is_first=not health.totals.get(use))
        return
    decision = decide(keys, use=use, now=now, times=times)
    if use == Key.Use.SIGNING and not current.has_private:
        yield Problem(
            "cannot_sign",
            Severity.ERROR,
            _("The private key of the current signing key %(kid)s is not stored here, so no tokens can be issued.")
            % {"kid": short_kid(current.kid)},
            _(
                "If there is no future signing key whose private key is stored here, generate a signing key. Then "
                "activate the future signing key:"
            ),
            _ACTIVATE,
        )
    elif use == Key.Use.SIGNING and decision.make_future and decision.activate is None:
        yield Problem(
            "no_future_signing",
            Severity.WARNING,
            _(
                "There is no future signing key. If the current signing key is revoked, services don't have the next "
                "key yet and refuse new tokens."
            ),
            _("Click “Generate key…” above the list of keys, or run:"),
            _ROTATE,
        )
    if use == Key.Use.ENCRYPTION and (idle := [key for key in keys if _is_idle(key, keys)]):
        yield Problem(
            "idle_encryption",
            Severity.NOTE,
            _(
                "These encryption keys never become current automatically, because the gateway doesn't have their "
                "private keys: %(keys)s."
            )
            % {"keys": _list_keys(idle)},
            _(
                "If you need one of these keys, give its private key to the gateway, then make the key current. "
                "If you don't need a key, revoke the key:"
            ),
            f"python manage.py instaccess_keys revoke --kid {idle[0].kid}",
        )
    served = served_at(current, times)
    if served is not None and now - served >= GRACE:
        can_rotate = current.has_private or decision.activate is not None
        yield _overdue_rotation(current, (now - served).days, can_rotate=can_rotate)


def _is_idle(key: Key, keys: list[Key]) -> bool:
    return key.status == Key.Status.FUTURE and not is_next(key, keys)


def _no_current(use: Key.Use, *, is_first: bool) -> Problem:
    text = _("There is no current %(use)s key, so no tokens can be issued.") % {"use": use.label}
    if use == Key.Use.SIGNING or is_first:
        return Problem("no_current", Severity.ERROR, text, _("Generate the missing keys:"), _INIT)
    # Don't suggest `instaccess_init`, because this command refuses to generate another encryption key. A gateway in
    # another deployment could not decrypt tokens that are encrypted for a new key.
    fix = _("Import the gateway's public key, or generate a key here. Then make the key current:")
    return Problem("no_current", Severity.ERROR, text, fix, _ACTIVATE)


def _overdue_rotation(current: Key, days: int, *, can_rotate: bool) -> Problem:
    text = ngettext(
        "The %(use)s key %(kid)s is overdue for rotation by %(days)d day.",
        "The %(use)s key %(kid)s is overdue for rotation by %(days)d days.",
        days,
    ) % {"use": current.get_use_display(), "kid": short_kid(current.kid), "days": days}
    if not can_rotate:
        fix = _(
            "The private key is not stored here. Import the next public key from the owner of the private key, then "
            "make the imported key current:"
        )
        return Problem("overdue", Severity.WARNING, text, fix, _ACTIVATE)
    fix = _(
        "Run `python manage.py instaccess_keys rotate` daily with cron. To rotate this key now, click the button "
        "above the list of keys, or run:"
    )
    return Problem("overdue", Severity.WARNING, text, fix, f"{_ROTATE} --use {current.use}")


def _find_unusable(health: KeyHealth) -> Iterator[Problem]:
    """Yield the problems with private keys that can't be decrypted, and with rows that can't be checked."""
    missing = [key for key in health.keys if health.undecryptable.get(key.kid) is Reason.KEK_MISSING]
    if missing:
        yield Problem(
            "kek_missing",
            Severity.ERROR,
            _("Keys can't be decrypted or checked, because their key-encryption key is not configured: %(keys)s.")
            % {"keys": _list_keys(missing)},
            _(
                "Add the missing key-encryption key at the end of INSTACCESS['KEY_ENCRYPTION_KEYS']. If the missing "
                'key was derived from SECRET_KEY, add the text "SECRET_KEY" there instead. If SECRET_KEY was '
                "replaced, also add the old SECRET_KEY to SECRET_KEY_FALLBACKS. Then check that every private key "
                "can be decrypted:"
            ),
            "python manage.py check --database default",
        )
    undecryptable = [
        key for key in health.keys if health.undecryptable.get(key.kid, Reason.KEK_MISSING) is not Reason.KEK_MISSING
    ]
    if undecryptable:
        yield Problem(
            "seal_broken",
            Severity.ERROR,
            _("Private keys can't be decrypted, because their rows were modified: %(keys)s.")
            % {"keys": _list_keys(undecryptable)},
            _("Restore the rows from a backup, or revoke the keys. Find out who modified the database."),
        )


def _altered_rows(health: KeyHealth) -> Problem:
    names = [_list_keys(list(health.altered))] if health.altered else []
    if health.unreadable:
        rows = ", ".join(map(str, health.unreadable[:_MAX_NAMED])) + ", …" * (len(health.unreadable) > _MAX_NAMED)
        names.append(_("unreadable rows with the ids %(ids)s") % {"ids": rows})
    return Problem(
        "key_altered",
        Severity.ERROR,
        _("Rows of keys were modified or inserted without this app, so these keys are not used: %(keys)s.")
        % {"keys": "; ".join(names)},
        _(
            "Restore the rows from a backup, or revoke the keys. Find out who modified the database. This command "
            "lists each row with the command that revokes its key:"
        ),
        "python manage.py check --database default",
    )


def _find_overdue_changes(health: KeyHealth, now: datetime, times: Times) -> Iterator[Problem]:
    """Yield the problems with private keys that should be erased, and with revoked keys that have live tokens."""
    unerased = [key for key in health.keys if key.has_private and is_gone(key, now=now - GRACE, times=times)]
    revoked = [key for key in health.keys if key.status == Key.Status.REVOKED and health.live.get(key.kid)]
    for code, text, affected in (
        (
            "not_erased",
            _("Private keys are still stored, although every token that used these keys has expired: %(keys)s."),
            unerased,
        ),
        (
            "revoked_with_live_tokens",
            _(
                "Tokens of revoked keys are still marked as live in the audit log, although gateways refuse these "
                "tokens: %(keys)s."
            ),
            revoked,
        ),
    ):
        if affected:
            fix = _("This command fixes the problem. Run the command daily with cron:")
            yield Problem(code, Severity.WARNING, text % {"keys": _list_keys(affected)}, fix, _ROTATE)


def _derived_key() -> Problem:
    return Problem(
        "kek_derived",
        Severity.NOTE,
        _(
            "Private keys are encrypted with a key derived from SECRET_KEY. An attacker who learns SECRET_KEY can "
            "decrypt the private keys."
        ),
        _(
            "In production, use a separate key-encryption key. Insert the new key at the start of "
            "INSTACCESS['KEY_ENCRYPTION_KEYS'], before \"SECRET_KEY\". If the setting is not set, set it to "
            '[new key, "SECRET_KEY"]. Restart every process, and run `python manage.py instaccess_keys reseal`. Then '
            'remove "SECRET_KEY" from the setting. To generate the new key, run:'
        ),
        'python -c "import secrets; print(secrets.token_urlsafe(32))"',
    )


def _describe_spike(spike: RefusalSpike) -> Problem:
    text = (
        _(
            "Within one hour, the %(role)s refused %(count)d requests with the reason “%(reason)s”. "
            "The usual number is about %(usual)d."
        )
        if round(spike.usual)
        else _(
            "Within one hour, the %(role)s refused %(count)d requests with the reason “%(reason)s”. "
            "Usually, this reason does not occur."
        )
    )
    return Problem(
        "unusual_refusals",
        Severity.WARNING,
        text
        % {
            "count": spike.count,
            "role": RefusalCount.Role(spike.role).label if spike.role in RefusalCount.Role else spike.role,
            "reason": spike.reason,
            "usual": round(spike.usual),
        },
        _("Search the log for this reason to see which clients were refused. The documentation explains the reason."),
    )


def _list_keys(keys: list[Key]) -> str:
    names = [
        f"{short_kid(key.kid)} ({key.get_use_display()}, {key.get_status_display()})" for key in keys[:_MAX_NAMED]
    ]
    return ", ".join(names) + (", …" if len(keys) > _MAX_NAMED else "")
