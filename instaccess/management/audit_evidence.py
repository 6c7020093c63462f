"""The subcommands of `instaccess_tokens` for tamper evidence: seal, checkpoint, verify, prune."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from .. import audit, keys
from ..audit import Statement
from ..conf import conf
from ..exceptions import AuditAltered
from .base import SubcommandCommand, iso

SUBCOMMANDS = {
    "seal": (
        "Create signed checkpoints that cover all audit rows that can no longer change. A row can no longer change "
        f"{audit.SETTLED // 60} minutes after its token was issued. Run this command from cron, hourly or daily."
    ),
    "checkpoint": "Print a checkpoint, or export it to a file. Store the file on another machine.",
    "verify": (
        "Compare every audit row with its HMAC and its checkpoint, and report the first modified row. Compare every "
        "row of a key with its HMAC, and report the modified rows."
    ),
    "prune": (
        "Delete old audit rows in short transactions, and record the deletion in a signed prune marker. Rows of live "
        "tokens are never deleted."
    ),
}
_AGE = re.compile(r"([1-9][0-9]{0,5})([hdw])", re.ASCII)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def add_arguments(sub: Mapping[str, CommandParser]) -> None:
    """Add the options of `SUBCOMMANDS` to `sub`, which contains a parser for each subcommand."""
    sub["checkpoint"].add_argument(
        "--number", type=int, help="Checkpoint number (default: the number of the latest checkpoint)."
    )
    sub["checkpoint"].add_argument("--file", help="Write the checkpoint to this new file, for `verify --checkpoint`.")
    sub["verify"].add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="FILE",
        help="Compare the audit log with this exported checkpoint. Can be repeated.",
    )
    sub["prune"].add_argument(
        "--older-than",
        metavar="AGE",
        help=(
            "Delete rows of tokens issued longer ago than this age: 400d, 36h or 52w, for example. "
            "Default: INSTACCESS['AUDIT_RETENTION_DAYS']."
        ),
    )
    sub["prune"].add_argument("--batch", type=int, default=1000, help="Rows per transaction (default: 1000).")
    sub["prune"].add_argument(
        "--force", action="store_true", help="Prune modified rows too, and record the tampering in the prune marker."
    )


class EvidenceSubcommands(SubcommandCommand):
    """A command that implements `SUBCOMMANDS`."""

    def _seal(self, options: dict[str, Any]) -> None:
        result = audit.seal(keys.evidence_keys())
        lines = [
            f"Checkpoint {created.number}: {created.rows} rows up to row {created.last}, digest {created.digest}"
            for created in result.made
        ]
        if not lines:
            lines = ["No rows are ready for a checkpoint."]
        if result.ready_at is not None:
            ready_at = iso(result.ready_at)
            lines.append(f"{result.waiting} rows can still change; the first of them can be covered at {ready_at}.")
        facts = {
            "made": [asdict(created) for created in result.made],
            "waiting": result.waiting,
            "ready_at": iso(result.ready_at),
        }
        self.print_result(options, facts, "\n".join(lines))
        if modified := sum(created.altered for created in result.made):
            raise CommandError(
                f"{modified} of these rows were modified before the checkpoint was created: run `python manage.py "
                "instaccess_tokens verify`."
            )

    def _checkpoint(self, options: dict[str, Any]) -> None:
        checkpoints = audit.checkpoints()
        number = options["number"]
        checkpoint = checkpoints.last() if number is None else checkpoints.filter(number=number).first()
        if checkpoint is None:
            missing = "no checkpoint yet" if number is None else f"no checkpoint {number}"
            raise CommandError(f"There is {missing}: run `python manage.py instaccess_tokens seal`.")
        statement = audit.read_checkpoint(checkpoint, keys.evidence_keys())
        document = audit.export_checkpoint(checkpoint)
        if options["file"]:
            _write(Path(options["file"]), document)
            self.stdout.write(
                f"Checkpoint {statement.number} was written to {options['file']}. Store the file on another machine."
            )
        elif options["json"]:
            self.stdout.write(document)
        else:
            self.stdout.write(_format_checkpoint(statement, checkpoint.jws))

    def _verify(self, options: dict[str, Any]) -> None:
        evidence_keys = keys.evidence_keys()
        copies = [audit.read_exported(_read(name), evidence_keys, name=name) for name in options["checkpoint"]]
        report = audit.verify(evidence_keys, copies)
        lines = []
        if report.pruned is not None:
            pruned_at = iso(datetime.fromtimestamp(report.pruned.pruned_at, UTC))
            lines.append(
                f"{report.pruned.rows} rows up to row {report.pruned.last} were pruned, most recently at {pruned_at}."
            )
        if not report.broken:
            lines.append(f"No tampering found in {report.rows} rows.")
        lines.append(f"{report.sealed} rows are covered by {report.checkpoints} checkpoints.")
        if report.last is not None:
            lines.append(f"The last checkpoint is number {report.last.number}, digest {report.last.digest}.")
        lines += [f"Note: {note}." for note in report.notes]
        refused = [error.detail for error in keys.examine()[1].values()]
        self.print_result(options, {**asdict(report), "keys": refused}, "\n".join(lines))
        failures = [f"The audit log was tampered with or can't be checked: {report.broken}."] if report.broken else []
        failures += [f"The table of keys was tampered with or can't be checked: {detail}." for detail in refused]
        if failures:
            raise CommandError("\n".join(failures))

    def _prune(self, options: dict[str, Any]) -> None:
        before = _before(options["older_than"])
        if options["dry_run"]:
            count = audit.prunable(before, keys.evidence_keys())
            self.print_result(options, {"would_delete": count}, f"{count} rows would be deleted.")
            return
        try:
            result = audit.prune(before, keys.evidence_keys(), batch=options["batch"], force=options["force"])
        except AuditAltered as error:
            raise CommandError(error.detail) from error
        text = f"Deleted {result.rows} rows of tokens issued before {iso(before)}."
        if result.last:
            text += f" A signed prune marker records that the rows up to row {result.last} were pruned."
        self.print_result(options, {"deleted": result.rows, "last": result.last}, text)


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
        return timezone.now() - timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise CommandError(f"--older-than {age} is before the year 1: use a smaller age.") from None


def _format_checkpoint(statement: Statement, jws: str) -> str:
    """Format a checkpoint for printing, and split the digest into groups that are easy to compare."""
    digest = " ".join(statement.digest[start : start + 8] for start in range(0, 64, 8))
    sealed_at, newest = (iso(datetime.fromtimestamp(time, UTC)) for time in (statement.sealed_at, statement.newest))
    return "\n".join(
        [
            f"Checkpoint {statement.number} of the InstAccess audit log",
            f"rows       {statement.rows}, ids {statement.first} to {statement.last}",
            f"issued     up to {newest}",
            f"created    {sealed_at}",
            f"digest     {digest}",
            f"signed     {audit.signed_by(jws)}",
            *(f"           {jws[start : start + 76]}" for start in range(0, len(jws), 76)),
        ]
    )


def _write(path: Path, text: str) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(file, "w") as stream:
            stream.write(text)
    except FileExistsError:
        raise CommandError(f"{path} already exists and is not overwritten: choose another file name.") from None
    except OSError as error:
        raise CommandError(f"Can't write {path}: {error.strerror}.") from error


def _read(name: str) -> str:
    try:
        return Path(name).read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the file isn't text"
        raise CommandError(f"Can't read {name}: {reason}.") from error
