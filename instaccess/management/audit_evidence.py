"""The subcommands of `instaccess_tokens` that are about the audit itself: seal, checkpoint, verify, prune."""

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
        "Add signed checkpoints over all rows of the audit that can't change any more: those of tokens issued more "
        f"than {audit.SETTLED // 60} minutes ago. For cron, hourly or daily."
    ),
    "checkpoint": "Print a checkpoint, or export it to be kept off this machine.",
    "verify": "Compare every row of the audit with its HMAC and its checkpoint; names the first that does not fit.",
    "prune": (
        "Delete old rows of the audit, in short batches, and say so in a signed marker. A live token's row stays, "
        "whatever its age."
    ),
}
_AGE = re.compile(r"([1-9][0-9]{0,5})([hdw])", re.ASCII)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def add_arguments(sub: Mapping[str, CommandParser]) -> None:
    """The options of these subcommands."""
    sub["checkpoint"].add_argument("--number", type=int, help="Which one; the latest where left out.")
    sub["checkpoint"].add_argument("--file", help="Write it to this new file, as `verify --checkpoint` reads it.")
    sub["verify"].add_argument(
        "--checkpoint", action="append", default=[], metavar="FILE", help="An exported checkpoint; can be repeated."
    )
    sub["prune"].add_argument(
        "--older-than",
        metavar="AGE",
        help="Such as 400d, 36h or 52w; INSTACCESS['AUDIT_RETENTION_DAYS'] if left out.",
    )
    sub["prune"].add_argument("--batch", type=int, default=1000, help="Rows a transaction (default 1000).")
    sub["prune"].add_argument(
        "--force", action="store_true", help="Prune rows that are not as they were written, too; the marker says so."
    )


class EvidenceSubcommands(SubcommandCommand):
    """What each of them does."""

    def _seal(self, options: dict[str, Any]) -> None:
        done = audit.seal(keys.evidence_keys())
        lines = [
            f"Checkpoint {made.number}: {made.rows} rows up to {made.last}, digest {made.digest}"
            for made in done.made
        ]
        if not lines:
            lines = ["Nothing to seal."]
        if done.ready_at is not None:
            ready_at = iso(done.ready_at)
            lines.append(f"{done.waiting} rows wait, for they may still change; the first until {ready_at}.")
        facts = {
            "made": [asdict(made) for made in done.made],
            "waiting": done.waiting,
            "ready_at": iso(done.ready_at),
        }
        self.done(options, facts, "\n".join(lines))
        if altered := sum(made.altered for made in done.made):
            raise CommandError(
                f"{altered} of these rows were edited before they were sealed: run `python manage.py "
                "instaccess_tokens verify`."
            )

    def _checkpoint(self, options: dict[str, Any]) -> None:
        found = audit.checkpoints()
        number = options["number"]
        checkpoint = found.last() if number is None else found.filter(number=number).first()
        if checkpoint is None:
            what = "no checkpoint yet" if number is None else f"no checkpoint {number}"
            raise CommandError(f"There is {what}: run `python manage.py instaccess_tokens seal`.")
        statement = audit.read_checkpoint(checkpoint, keys.evidence_keys())
        document = audit.export_checkpoint(checkpoint)
        if options["file"]:
            _write(Path(options["file"]), document)
            self.stdout.write(f"Checkpoint {statement.number} is in {options['file']}. Keep it off this machine.")
        elif options["json"]:
            self.stdout.write(document)
        else:
            self.stdout.write(_printed(statement, checkpoint.jws))

    def _verify(self, options: dict[str, Any]) -> None:
        evidence_keys = keys.evidence_keys()
        copies = [audit.read_exported(_read(name), evidence_keys, name=name) for name in options["checkpoint"]]
        report = audit.verify(evidence_keys, copies)
        lines = []
        if report.pruned is not None:
            pruned_at = iso(datetime.fromtimestamp(report.pruned.pruned_at, UTC))
            lines.append(
                f"{report.pruned.rows} rows up to {report.pruned.last} were pruned, the last on {pruned_at}."
            )
        if not report.broken:
            lines.append(f"All {report.rows} rows are as they were written.")
        lines.append(f"{report.sealed} stand under {report.checkpoints} checkpoints.")
        if report.last is not None:
            lines.append(f"The last is number {report.last.number}, digest {report.last.digest}.")
        lines += [f"Note: {note}." for note in report.notes]
        self.done(options, asdict(report), "\n".join(lines))
        if report.broken:
            raise CommandError(f"The audit is not as it was written: {report.broken}.")

    def _prune(self, options: dict[str, Any]) -> None:
        before = _before(options["older_than"])
        if options["dry_run"]:
            count = audit.prunable(before, keys.evidence_keys())
            self.done(options, {"would_delete": count}, f"{count} rows would be deleted.")
            return
        try:
            done = audit.prune(before, keys.evidence_keys(), batch=options["batch"], force=options["force"])
        except AuditAltered as error:
            raise CommandError(error.detail) from error
        text = f"{done.rows} rows older than {iso(before)} deleted."
        if done.last:
            text += f" Rows up to {done.last} are gone; a signed marker says so."
        self.done(options, {"deleted": done.rows, "last": done.last}, text)


def _before(age: str | None) -> datetime:
    if age is None:
        days = conf.audit_retention_days
        if days is None:
            raise CommandError("Say how old: --older-than 400d, or set INSTACCESS['AUDIT_RETENTION_DAYS'].")
        age = f"{days}d"
    match = _AGE.fullmatch(age)
    if match is None:
        raise CommandError(f"--older-than takes an age such as 400d, 36h or 52w, not {age!r}.")
    try:
        return timezone.now() - timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise CommandError(f"--older-than {age} reaches back before the year 1.") from None


def _printed(statement: Statement, jws: str) -> str:
    """A checkpoint for paper: digest and signature in pieces that a person can compare."""
    digest = " ".join(statement.digest[start : start + 8] for start in range(0, 64, 8))
    sealed_at, newest = (
        iso(datetime.fromtimestamp(moment, UTC)) for moment in (statement.sealed_at, statement.newest)
    )
    return "\n".join(
        [
            f"Checkpoint {statement.number} of the InstAccess audit",
            f"rows       {statement.rows}, ids {statement.first} to {statement.last}",
            f"issued     up to {newest}",
            f"sealed     {sealed_at}",
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
        raise CommandError(
            f"{path} is there already, and an older checkpoint is worth keeping: name another."
        ) from None
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}.") from error


def _read(name: str) -> str:
    try:
        return Path(name).read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CommandError(f"{name} can't be read: {reason}.") from error
