"""The output of the commands `instaccess_tokens verify`, `seal` and `review`, as text and as JSON.

In JSON, the ids of audit rows are strings, because many JSON parsers round numbers above 2**53 (RFC 7493 §2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ..audit import Problem, Report, Statement
from .base import iso

LISTED = 100
"""The maximum number of key problems that `verify` lists. Further problems are only counted."""


def report_lines(report: Report) -> list[str]:
    """Return the sentences that `verify` prints about the audit log, one per line."""
    lines = []
    if report.pruned is not None:
        pruned_at = iso_seconds(report.pruned.pruned_at)
        lines.append(
            f"{report.pruned.rows} rows up to row {report.pruned.last} were pruned, most recently at {pruned_at}."
        )
    if not report.problems:
        reviewed = any(incident.present for incident in report.incidents)
        lines.append(f"No tampering found in {report.rows} rows{', except in reviewed incidents' * reviewed}.")
    lines += [f"Problem {problem.code}: {problem.text}." for problem in report.problems]
    if report.more:
        lines.append(f"{report.more} more problems are not listed.")
    lines.append(f"{report.sealed} rows are covered by {report.checkpoints} checkpoints.")
    if report.last is not None:
        lines.append(f"The last checkpoint is number {report.last.number}, digest {report.last.digest}.")
    for incident in report.incidents:
        review, count = incident.review, len(incident.problems)
        more = f" and {count - 1} more problems" * (count > 1)
        lines.append(
            f"Reviewed incident {review.number}: {incident.problems[0].text}{more}. {incident.present} of {count} "
            f"problems still exist. Reviewed by {review.by} at {iso_seconds(review.reviewed_at)}: {review.reason}"
        )
    return lines + [f"Note: {note}." for note in report.notes]


def report_facts(report: Report) -> dict[str, Any]:
    """Return the members about the audit log that `verify --json` prints."""
    return {
        "rows": report.rows,
        "sealed": report.sealed,
        "checkpoints": report.checkpoints,
        "last": None if report.last is None else statement_facts(report.last),
        "pruned": None if report.pruned is None else {**asdict(report.pruned), "last": str(report.pruned.last)},
        "problems": [problem_facts(problem) for problem in report.problems],
        "more": report.more,
        "incidents": [
            {
                "number": incident.review.number,
                "by": incident.review.by,
                "reason": incident.review.reason,
                "reviewed_at": iso_seconds(incident.review.reviewed_at),
                "problems": [problem_facts(problem) for problem in incident.problems],
                "present": incident.present,
            }
            for incident in report.incidents
        ],
        "notes": report.notes,
    }


def key_lines(refused: Sequence[str]) -> list[str]:
    """Return the sentences that `verify` prints about unusable keys. `refused` contains the reason for each key."""
    lines = [f"Problem with a key: {reason}." for reason in refused[:LISTED]]
    return lines + [f"{len(refused) - LISTED} more problems with keys are not listed."] * (len(refused) > LISTED)


def key_facts(refused: Sequence[str]) -> dict[str, Any]:
    """Return the members about unusable keys that `verify --json` prints."""
    return {"keys": list(refused[:LISTED]), "more_keys": max(len(refused) - LISTED, 0)}


def statement_facts(statement: Statement) -> dict[str, Any]:
    """Convert a checkpoint to a dictionary for `--json`."""
    return {**asdict(statement), "first": str(statement.first), "last": str(statement.last)}


def problem_facts(problem: Problem) -> dict[str, Any]:
    """Convert a problem in the audit log to a dictionary for `--json`."""
    return {
        "code": problem.code,
        "kind": problem.kind,
        "first": str(problem.first),
        "last": str(problem.last),
        "count": problem.count,
        "text": problem.text,
    }


def iso_seconds(seconds: int) -> str | None:
    """Format a time in seconds since the epoch as RFC 3339 in UTC."""
    return iso(datetime.fromtimestamp(seconds, UTC))
