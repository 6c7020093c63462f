"""`instaccess_tokens export`: the audit to standard output, or to a new file that nobody else may read."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.db.models import Q, QuerySet

from ..audit import Export, Format
from ..models import IssuedToken
from .base import operator

_KILLED_BY_SIGPIPE = 128 + 13
"""What a shell says of a program whose reader has gone, `cat` for one."""


def add_arguments(parser: CommandParser) -> None:
    """What `export` takes beside the filters that `list` takes too."""
    parser.add_argument("--format", required=True, choices=[each.value for each in Format])
    parser.add_argument("--file", metavar="PATH", help="A new file with mode 0600; without it, standard output.")
    for name, text in (("since", "at or after"), ("until", "before")):
        parser.add_argument(
            f"--{name}",
            metavar="TIME",
            help=f"Issued {text} this time, such as 2026-11-01 (its first second) or 2026-11-01T12:30:00; UTC.",
        )


def period(options: dict[str, Any]) -> list[Q]:
    """Conditions from `--since` and `--until`. Raises CommandError."""
    since, until = (_moment(name, options[name]) for name in ("since", "until"))
    if since and until and since >= until:
        raise CommandError("--since must be before --until.")
    return [Q(issued_at__gte=since)] * bool(since) + [Q(issued_at__lt=until)] * bool(until)


def write(rows: QuerySet[IssuedToken], options: dict[str, Any], stdout: OutputWrapper) -> None:
    """Write these rows to where the options say. Raises CommandError; errors of the database as they come."""
    named = ("user", "application", "account", "live", "since", "until")
    filters = {name: str(options[name]) for name in named if options[name]}
    export = Export(rows, Format(options["format"]), by=operator(), filters=filters)
    path = options["file"]
    if path == "":
        raise CommandError("--file is empty.")
    try:
        if path is None:
            _to_stdout(export, stdout)
            return
        _to_file(export, path)
    except OSError as error:
        raise CommandError(f"The export can't be written: {error}.") from error
    stdout.write(f"{export.rows_written} rows exported to {path}.")


def _to_stdout(export: Export, stdout: OutputWrapper) -> None:
    # Bytes: the terminal's encoding and line ends are not those of the file that this may become.
    binary = getattr(stdout, "buffer", None)
    try:
        for text in export:
            if binary is None:
                stdout.write(text, ending="")
            else:
                binary.write(text.encode())
        stdout.flush()
    except BrokenPipeError:
        # Whoever read it, `head` say, has enough. What is still buffered goes nowhere, without a word.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise SystemExit(_KILLED_BY_SIGPIPE) from None


def _to_file(export: Export, path: str) -> None:
    partial = f"{path}.partial"
    _refuse_to_overwrite(path)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(
            f"{partial} is there already: another export is writing it, or was killed. If so, remove it."
        ) from None
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            for text in export:
                file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _refuse_to_overwrite(path)
        os.rename(partial, path)
    except BaseException:
        # Half an audit is never taken for a whole one.
        with suppress(OSError):
            os.unlink(partial)
        raise


def _refuse_to_overwrite(path: str) -> None:
    if os.path.lexists(path):
        raise CommandError(f"{path} is there already; nothing is overwritten.")


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandError(
            f"--{name} takes a time such as 2026-11-01 or 2026-11-01T12:30:00+01:00, not {text!r}."
        ) from None
