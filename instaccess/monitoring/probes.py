"""The health checks of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from . import background
from .background import Background, Run
from .findings import Finding, Status, describe


class Check:
    """A health check of this process. Each check runs in at most one thread at a time.

    Args:
        name: the name of the check in the response.
        function: the function that runs the check. The function returns the finding, or None if there is no
            problem. An exception counts as an error.
        roles: the roles that need the part that the function checks.
        required: whether these roles need the part to answer requests. If False, a failed check, or a check without
            an answer at the deadline, is reported as a warning.
    """

    def __init__(
        self, name: str, function: Callable[[], Finding | None], *, roles: Iterable[str], required: bool
    ) -> None:
        self.name, self.roles = name, frozenset(roles)
        self._failure = Status.ERROR if required else Status.WARNING
        self.start = Background(name, function).start

    def finding(self, run: Run[Finding | None], deadline: float) -> Finding:
        """Return the finding of a run. If the run hasn't ended at the deadline, the finding is "no answer yet"."""
        outcome = run.wait(deadline)
        if outcome is None:
            return Finding(self._failure, "no answer yet", {"pending_seconds": round(run.seconds, 1)})
        if isinstance(outcome, Exception):
            return Finding(self._failure, describe(outcome))
        return outcome[0] or Finding()


_checks: dict[str, Check] = {}


def add_check(
    name: str, function: Callable[[], Finding | None], *, roles: Iterable[str], required: bool = True
) -> None:
    """Add a health check. The arguments are the arguments of `Check`.

    `instaccess/apps.py` adds the checks that need the issuer's tables.
    """
    _checks[name] = Check(name, function, roles=roles, required=required)


def run_checks(roles: Iterable[str]) -> tuple[Mapping[str, Finding], Mapping[str, bool]]:
    """Run the checks of these roles at the same time, and wait at most `ANSWER_SECONDS` for all of them.

    Returns a mapping from the name of a check to its finding, and a mapping from each role to whether the role is
    ready.
    """
    wanted = frozenset(roles)
    deadline = time.monotonic() + background.ANSWER_SECONDS
    checks = [check for check in _checks.values() if check.roles & wanted]
    runs = [check.start() for check in checks]
    findings = {check.name: check.finding(run, deadline) for check, run in zip(checks, runs, strict=True)}
    failed = [check for check in checks if findings[check.name].status == Status.ERROR]
    return findings, {role: not any(role in check.roles for check in failed) for role in sorted(wanted)}
