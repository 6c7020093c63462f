"""The subcommands of `instaccess_tokens` for tamper evidence: seal, checkpoint, verify, review and prune."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from django.core.management.base import CommandError, CommandParser

from .. import audit, keys, trust
from ..audit import Report, Statement
from ..conf import conf
from ..exceptions import AuditAltered
from ..opaque import Opaque
from . import audit_reports
from .base import CONTINUE, SubcommandCommand, iso, operator, write_new_file

SUBCOMMANDS = {
    "seal": (
        "Create signed checkpoints that cover all audit rows that can no longer change. A row can no longer change "
        f"{audit.SETTLED // 60} minutes after its token was issued. Run this command from cron, hourly or daily."
    ),
    "checkpoint": "Print a checkpoint, or write the checkpoint to a file. Store the file on another machine.",
    "verify": (
        "Compare every audit row with its HMAC and its checkpoint, and list the rows that were modified, deleted or "
        "added. Compare every row of the key table with its HMAC. Exit with an error if a problem was not reviewed."
    ),
    "review": (
        "Record in a signed review that you have investigated problems that `verify` lists. `verify` then "
        "doesn't fail because of these problems, and shows the review. If the same rows change again, `verify` lists "
        "a new problem."
    ),
    "prune": (
        "Delete old audit rows in short transactions, and record the deletion in a signed prune marker. Rows of live "
        "tokens are never deleted."
    ),
}
_AGE = re.compile(r"([1-9][0-9]{0,5})([hdw])", re.ASCII)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def add_arguments(sub: Mapping[str, CommandParser]) -> None:
    """Add the options of `SUBCOMMANDS`. `sub` contains the parser of each subcommand, by name."""
    sub["checkpoint"].add_argument(
        "--number", type=int, help="Checkpoint number (default: the number of the latest checkpoint)."
    )
    sub["checkpoint"].add_argument(
        "--file",
        help="Write the checkpoint to this file, which must not exist yet. `verify --checkpoint` reads such a file.",
    )
    for name in ("verify", "review"):
        sub[name].add_argument(
            "--checkpoint",
            action="append",
            default=[],
            metavar="FILE",
            help="Compare the audit log with this exported checkpoint. Can be repeated.",
        )
    sub["review"].add_argument("code", nargs="+", help="The code of a problem, as printed by `verify`.")
    sub["review"].add_argument(
        "--reason", required=True, help="Describe what you found out and what you did. The review contains this text."
    )
    sub["prune"].add_argument(
        "--older-than",
        metavar="AGE",
        help=(
            "Delete the rows of tokens that were issued longer ago than this age. Examples: 36h (hours), 400d "
            "(days), 52w (weeks). Default: INSTACCESS['AUDIT_RETENTION_DAYS']."
        ),
    )
    sub["prune"].add_argument(
        "--batch", type=int, default=1000, help="Number of rows per transaction (default: 1000)."
    )
    sub["prune"].add_argument(
        "--force", action="store_true", help="Prune modified rows too, and record the tampering in the prune marker."
    )


class EvidenceSubcommands(SubcommandCommand):
    """A base class for `instaccess_tokens`, with one method for each of `SUBCOMMANDS`."""

    recorded = frozenset({"seal", "verify", "prune"})
    long = MappingProxyType(
        {
            "seal": CONTINUE,
            "verify": "`verify` stores no results: to check all rows, run the same command again.",
            "review": "Nothing was recorded: run the same command again.",
            "prune": CONTINUE,
            "export": "An incomplete file was deleted. To export all rows, run the same command again.",
        }
    )

    def _seal(self, options: dict[str, Any]) -> None:
        # First mark the tokens of interrupted revocations as revoked, because a row must not change after a
        # checkpoint covers the row.
        audit.complete_revocations(keks=keys.keks_for_revocation())
        result = audit.seal(keys.evidence_keys(), progress=self.progress)
        audit.check_progress(keys.evidence_keys())
        lines = [
            f"Checkpoint {created.number}: {created.rows} rows up to row {created.last}, digest {created.digest}"
            for created in result.made
        ]
        if not lines:
            lines = ["No rows are ready for a checkpoint."]
        if result.ready_at is not None:
            ready_at = iso(result.ready_at)
            lines.append(
                f"{result.waiting} rows can still change; a checkpoint can cover the first of these rows at "
                f"{ready_at}."
            )
        facts = {
            "made": [audit_reports.statement_facts(created) for created in result.made],
            "waiting": result.waiting,
            "ready_at": iso(result.ready_at),
        }
        self.print_result(options, facts, "\n".join(lines))
        if modified := sum(created.altered for created in result.made):
            raise CommandError(
                f"{modified} of these rows were modified before the checkpoint was created. To list these rows, run "
                "`python manage.py instaccess_tokens verify`."
            )

    def _checkpoint(self, options: dict[str, Any]) -> None:
        checkpoints = audit.checkpoints()
        number = options["number"]
        checkpoint = checkpoints.last() if number is None else checkpoints.filter(number=number).first()
        if checkpoint is None:
            missing = "no checkpoint yet" if number is None else f"no checkpoint {number}"
            raise CommandError(
                f"There is {missing}. To create a checkpoint, run `python manage.py instaccess_tokens seal`."
            )
        statement = audit.read_checkpoint(checkpoint, keys.evidence_keys())
        document = audit.export_checkpoint(checkpoint)
        if options["file"] is not None:
            write_new_file(options["file"], Opaque(document), mode=0o644)
            self.stdout.write(
                f"Checkpoint {statement.number} was written to {options['file']}. Store the file on another machine."
            )
        elif options["json"]:
            self.stdout.write(document)
        else:
            self.stdout.write(_format_checkpoint(statement, checkpoint.jws))

    def _verify(self, options: dict[str, Any]) -> None:
        report = _run_verify(options, self.progress)
        lost = audit.check_progress(keys.evidence_keys())
        refused = [error.detail for error in keys.examine()[1].values()]
        facts = {**audit_reports.report_facts(report), **audit_reports.key_facts(refused), "lost": lost or None}
        lines = audit_reports.report_lines(report) + audit_reports.key_lines(refused)
        self.print_result(options, facts, "\n".join(lines))
        failures = []
        if lost:
            failures.append(f"The database has lost rows: {lost}. What to do: {trust.RESTORED}.")
        if report.problems:
            failures.append(f"The audit log was modified or can't be checked: {report.summary}.")
        if refused:
            failures.append(f"The table of keys was modified or can't be checked: {refused[0]}.")
        if failures:
            raise CommandError("\n".join(failures))

    def _review(self, options: dict[str, Any]) -> None:
        if not options["reason"].strip():
            raise CommandError("--reason is empty: give the reason, which is stored in the review.")
        listed = {problem.code: problem for problem in _run_verify(options, self.progress).problems}
        if unknown := [code for code in options["code"] if code not in listed]:
            raise CommandError(
                f"`verify` lists no problem with the code {', '.join(unknown)}. If the rows have changed, the "
                "problem has a new code. To print the codes, run `python manage.py instaccess_tokens verify` again."
            )
        problems = [listed[code] for code in dict.fromkeys(options["code"])]
        review = audit.record_review(problems, keys.evidence_keys(), by=operator(), reason=options["reason"])
        facts = {"number": review.number, "problems": [audit_reports.problem_facts(problem) for problem in problems]}
        self.print_result(
            options, facts, f"Review {review.number} records that you reviewed {len(problems)} problems."
        )

    def _prune(self, options: dict[str, Any]) -> None:
        before = _before(options["older_than"])
        if options["dry_run"]:
            count = audit.prunable(before, keys.evidence_keys())
            self.print_result(options, {"would_delete": count}, f"{count} rows would be deleted.")
            return
        try:
            result = audit.prune(
                before,
                keys.evidence_keys(),
                batch=options["batch"],
                force=options["force"],
                progress=self.progress,
            )
        except AuditAltered as error:
            raise CommandError(error.detail) from error
        text = f"Deleted {result.rows} rows of tokens issued before {iso(before)}."
        if result.last:
            text += f" A signed prune marker records that the rows up to row {result.last} were pruned."
        self.print_result(options, {"deleted": result.rows, "last": str(result.last)}, text)


def _run_verify(options: dict[str, Any], progress: audit.Progress) -> Report:
    evidence_keys = keys.evidence_keys()
    copies = [audit.read_exported(_read(name), evidence_keys, name=name) for name in options["checkpoint"]]
    return audit.verify(evidence_keys, copies, progress=progress)


def _before(age: str | None) -> datetime:
    if age is None:
        days = conf.audit_retention_days
        if days is None:
            raise CommandError(
                "No age given: add --older-than 400d, for example, or set INSTACCESS['AUDIT_RETENTION_DAYS']."
            )
        age = f"{days}d"
    match = _AGE.fullmatch(age)
    if match is None:
        raise CommandError(f"--older-than {age!r} isn't an age: use a value such as 400d, 36h or 52w.")
    try:
        return audit.current_time() - timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise CommandError(f"--older-than {age} is before the year 1: use a smaller age.") from None


def _format_checkpoint(statement: Statement, jws: str) -> str:
    """Format a checkpoint for printing on paper. The digest is split into groups that are easy to compare."""
    digest = " ".join(statement.digest[start : start + 8] for start in range(0, 64, 8))
    return "\n".join(
        [
            f"Checkpoint {statement.number} of the InstAccess audit log",
            f"rows       {statement.rows}, ids {statement.first} to {statement.last}",
            f"issued     up to {iso(audit.id_time(statement.last))}",
            f"created    {audit_reports.iso_seconds(statement.sealed_at)}",
            f"reviews    {statement.reviews}",
            f"digest     {digest}",
            f"signed     {audit.signed_by(jws)}",
            *(f"           {jws[start : start + 76]}" for start in range(0, len(jws), 76)),
        ]
    )


def _read(name: str) -> str:
    try:
        return Path(name).read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the file isn't text"
        raise CommandError(f"Can't read {name}: {reason}. Check the path after --checkpoint.") from error
