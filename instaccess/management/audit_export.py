"""The subcommand `instaccess_tokens export`, which writes the audit log to standard output or to a private file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.db.models import Q, QuerySet

from ..audit import Advance, Export, Format, filter_by_access
from ..models import IssuedToken
from .base import operator
from .progress_line import ProgressLine

_KILLED_BY_SIGPIPE = 128 + 13
"""The exit code that a shell reports if SIGPIPE has killed a program."""


def add_arguments(parser: CommandParser) -> None:
    """Add the options of the subcommand `export` that the subcommand `list` doesn't have."""
    parser.add_argument(
        "--format", required=True, choices=[each.value for each in Format], help="Format of the export."
    )
    parser.add_argument(
        "--file",
        metavar="PATH",
        help="Write to this file, which must not exist yet, with mode 0600. Default: standard output.",
    )


def add_period_arguments(parser: CommandParser) -> None:
    """Add the options that select a period, which the subcommands `list` and `export` share."""
    for name, text in (("since", "at or after"), ("until", "before")):
        parser.add_argument(
            f"--{name}",
            metavar="TIME",
            help=f"Only tokens issued {text} this time, for example 2026-11-01 or 2026-11-01T12:30:00+01:00. A time "
            "without an offset is in UTC.",
        )
    parser.add_argument(
        "--had-access",
        action="store_true",
        help="With --since or --until: tokens that were valid at some time in the period, instead of tokens issued "
        "in the period.",
    )


def period(options: dict[str, Any]) -> list[Q]:
    """Return the filters for the options `--since`, `--until` and `--had-access`.

    Raises CommandError if a time is invalid, if `--since` is not before `--until`, or if `--had-access` is given
    without a time.
    """
    since, until = (_parse_time(name, options[name]) for name in ("since", "until"))
    if since and until and since >= until:
        raise CommandError("--since must be before --until.")
    if options["had_access"]:
        if not (since or until):
            raise CommandError("--had-access needs a period: add --since or --until.")
        return [filter_by_access(since, until)]
    return [Q(issued_at__gte=since)] * bool(since) + [Q(issued_at__lt=until)] * bool(until)


def write(
    rows: QuerySet[IssuedToken], options: dict[str, Any], stdout: OutputWrapper, progress: ProgressLine
) -> None:
    """Write audit rows to standard output, or to the new file of the option `--file`, and show the progress.

    Raises:
        CommandError: `--file` is empty, exists already or can't be written.
        DatabaseError: the rows can't be read.
    """
    names = ("user", "application", "account", "live", "since", "until", "had_access")
    filters = {name: str(options[name]) for name in names if options[name]}
    export = Export(rows, Format(options["format"]), by=operator(), filters=filters)
    if options["file"] is None and stdout.isatty():
        progress.hide()  # The progress line would appear between the exported rows.
    # Don't count filtered rows, because counting can take as long as the export.
    advance = progress("exporting", None if filters else rows.count)
    path = options["file"]
    if path == "":
        raise CommandError("--file is empty: give a file name.")
    try:
        if path is None:
            _to_stdout(export, stdout, advance)
            return
        _to_file(export, path, advance)
    except OSError as error:
        raise CommandError(f"Can't write the export: {error}. Choose another place with --file.") from error
    progress.clear()
    stdout.write(f"Exported {export.rows_written} rows to {path}.")


def _to_stdout(export: Export, stdout: OutputWrapper, advance: Advance) -> None:
    # Write bytes, so that Python doesn't apply the encoding and the line endings of the terminal to the export.
    binary = getattr(stdout, "buffer", None)
    try:
        for text in _counted(export, advance):
            if binary is None:
                stdout.write(text, ending="")
            else:
                binary.write(text.encode())
        stdout.flush()
    except BrokenPipeError:
        # The program that reads the output, such as `head`, has exited. Redirect standard output to /dev/null, so
        # that Python doesn't report an error when it flushes the buffer at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise SystemExit(_KILLED_BY_SIGPIPE) from None


def _counted(export: Export, advance: Advance) -> Iterator[str]:
    """Yield the text of each batch. After a batch is written, report the number of its rows."""
    done = 0
    # Close the export explicitly, so that the export logs its end even if `advance` raises an exception.
    batches: Any = iter(export)
    with closing(batches):
        for text in batches:
            yield text
            rows = export.rows_written - done
            done += rows
            advance(rows)


def _to_file(export: Export, path: str, advance: Advance) -> None:
    partial = f"{path}.partial"
    _refuse_to_overwrite(path)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(
            f"{partial} already exists, because another export is running or was killed. If no export is running, "
            "delete this file."
        ) from None
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            for text in _counted(export, advance):
                file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _refuse_to_overwrite(path)
        os.rename(partial, path)
    except BaseException:
        # Delete the incomplete file, because an operator could mistake this file for a complete export.
        with suppress(OSError):
            os.unlink(partial)
        raise


def _refuse_to_overwrite(path: str) -> None:
    if os.path.lexists(path):
        raise CommandError(f"{path} already exists and is not overwritten: choose another file name.")


def _parse_time(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandError(
            f"--{name} {text!r} isn't a time: use a value such as 2026-11-01 or 2026-11-01T12:30:00+01:00."
        ) from None
