"""The base classes of commands, and functions that several commands share."""

from __future__ import annotations

import argparse
import getpass
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from .. import audit, database_errors
from ..exceptions import InstAccessError
from ..opaque import Opaque
from ..times import format_rfc3339
from .progress_line import INTERRUPTED, ProgressLine, stoppable

with suppress(ImportError):  # Windows has no user ids, so the module `pwd` doesn't exist there.
    import pwd


CONTINUE = "To continue, run the same command again."
"""The message after Ctrl-C if the next run of the command continues where this run was stopped."""


class OperatorCommand(BaseCommand):
    """A command that prints on any terminal, and reports a database error in one line."""

    failure = ""
    """The sentence that is printed before a database error."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        with escaping(sys.stdout), escaping(sys.stderr):
            try:
                return super().execute(*args, **options)
            except Error as error:
                raise CommandError(f"{self.failure}{describe_database_error(error)}") from error
            except KeyboardInterrupt:
                # If Python code has called the command with `call_command`, let this code handle KeyboardInterrupt.
                if not getattr(self, "_called_from_command_line", False):
                    raise
                raise CommandError("Interrupted.", returncode=INTERRUPTED) from None


class SubcommandCommand(OperatorCommand):
    """A command with subcommands. For `erase-name`, for example, the command calls the method `_erase_name`.

    Attributes:
        recorded: the subcommands whose last run is recorded for monitoring.
        long: the subcommands that show their progress and that Ctrl-C stops at the end of a batch. Each value tells
            the operator how to continue.
        progress: the line that shows the progress.
    """

    recorded: frozenset[str] = frozenset()
    long: Mapping[str, str] = MappingProxyType({})
    progress: ProgressLine

    def add_subcommands(
        self, parser: CommandParser, texts: Mapping[str, str], *, parser_class: type[CommandParser] = CommandParser
    ) -> dict[str, CommandParser]:
        """Add a parser for each subcommand.

        Each parser also accepts Django's common options, so that `… list --settings x` works. If a common option is
        given before the subcommand, the parser of the subcommand doesn't overwrite the value.

        Args:
            texts: the help text of each subcommand, by name.
            parser_class: the class of the parsers.

        Returns:
            The parser of each subcommand, by name.
        """
        subparsers = parser.add_subparsers(dest="subcommand", required=True, parser_class=parser_class)
        sub = {name: subparsers.add_parser(name, help=text, description=text) for name, text in texts.items()}
        hidden: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        for subparser in sub.values():
            subparser.add_argument("-v", "--verbosity", type=int, choices=range(4), **hidden)
            for option in ("--settings", "--pythonpath"):
                subparser.add_argument(option, **hidden)
            for option in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
                subparser.add_argument(option, action="store_true", **hidden)
        return sub

    def handle(self, *args: Any, **options: Any) -> None:
        run: Callable[[dict[str, Any]], None] = getattr(self, "_" + options["subcommand"].replace("-", "_"))
        is_recorded = options["subcommand"] in self.recorded and not options.get("dry_run")
        self.progress = ProgressLine(self.stderr)
        resume = self.long.get(options["subcommand"])
        try:
            with (
                nullcontext() if resume is None else stoppable(self.progress, resume),
                audit.record_run(options["subcommand"]) if is_recorded else nullcontext(),
            ):
                run(options)
        except InstAccessError as error:
            raise CommandError(error.detail) from error

    def print_result(self, options: dict[str, Any], facts: Any, text: str) -> None:
        """Print the result of a subcommand: `facts` as JSON if `--json` is given, otherwise `text`."""
        self.progress.clear()
        if options["json"]:
            self.print_json(facts)
        else:
            self.stdout.write(text)

    def print_json(self, value: Any) -> None:
        """Print a value as one JSON document to standard output."""
        self.stdout.write(json.dumps(value, indent=2))


@contextmanager
def escaping(stream: Any) -> Iterator[None]:
    """Make a stream print an escape sequence for each character that its encoding doesn't contain.

    For example, an ASCII terminal shows `M\\xfcller`. Without escape sequences, a command would fail if a user's name
    contains such a character. A stream without an encoding, such as `io.StringIO`, is not changed.
    """
    errors = getattr(stream, "errors", None)
    if not isinstance(stream, io.TextIOWrapper) or errors not in {"strict", "surrogateescape"}:
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=errors)


def describe_database_error(error: Error) -> str:
    """Return the database's own message as a sentence.

    If a table or a column is missing, a second sentence names the command `migrate`.
    """
    message = f"Database error: {database_errors.describe(error).rstrip('.?')}."
    return f"{message} Run `python manage.py migrate`." if database_errors.needs_migration(error) else message


def operator() -> str:
    """Describe the operating system user who runs the command, for logs and the audit log.

    Returns `uid 1000 (mueller), command line`, for example. Environment variables such as LOGNAME and SUDO_USER are
    ignored, because any user can set them. With `sudo`, the result therefore contains root, and only the log of sudo
    contains the name of the person.
    """
    if not hasattr(os, "getuid"):  # Windows has no user ids, so use the name from the environment.
        return f"{getpass.getuser()}, command line"
    uid = os.getuid()
    try:
        # Replace undecodable bytes, because the database could not store the name.
        name = pwd.getpwuid(uid).pw_name.encode(errors="replace").decode()
        return f"uid {uid} ({name}), command line"
    except KeyError:  # In a container, the user may have no name.
        return f"uid {uid}, command line"


def write_new_file(path: str, text: Opaque[str], *, mode: int) -> None:
    """Write a string to a new file. If the string can't be written completely, delete the file.

    Args:
        mode: the permissions of the file, such as 0o600. The file is created with this mode, so that no other user
            can open the file before a later chmod.

    Raises CommandError if the path is empty or already exists, or if the file can't be written.
    """
    if path in {"", "-"}:
        raise CommandError("--file needs the name of a new file. Without --file, the command prints its result.")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError:
        raise CommandError(f"{path} already exists and is not overwritten: choose another file name.") from None
    except OSError as error:
        raise CommandError(f"Can't write {path}: {error.strerror}. Choose another path.") from error
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text.reveal())
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError):
            raise CommandError(f"Can't write {path}: {error.strerror}. Choose another path.") from error
        raise


def iso(when: datetime | None) -> str | None:
    """Format a time as RFC 3339 in UTC, without fractions of a second. Returns None if `when` is None."""
    return format_rfc3339(when) if when else None
