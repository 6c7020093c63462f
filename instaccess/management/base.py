"""Base class of commands with subcommands: parsers, `--json` output and readable errors."""

from __future__ import annotations

import argparse
import getpass
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from ..exceptions import InstAccessError
from ..times import format_rfc3339


class SubcommandCommand(BaseCommand):
    """A command that calls the method named after its subcommand: `erase-name` calls `_erase_name`."""

    def add_subcommands(
        self, parser: CommandParser, texts: Mapping[str, str], *, parser_class: type[CommandParser] = CommandParser
    ) -> dict[str, CommandParser]:
        """Add a parser for each subcommand.

        Each parser also accepts Django's common options, so that `… list --settings x` works. An option given before
        the subcommand keeps its value.

        Args:
            texts: the help text of each subcommand, by name.
            parser_class: class of the parsers.

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
        try:
            run(options)
        except InstAccessError as error:
            raise CommandError(error.detail) from error
        except Error as error:
            raise CommandError(
                f"Database error: {error}. If tables are missing, run `python manage.py migrate`."
            ) from error

    def print_result(self, options: dict[str, Any], facts: Any, text: str) -> None:
        """Print the result: `facts` with `--json`, otherwise `text`."""
        if options["json"]:
            self.print_json(facts)
        else:
            self.stdout.write(text)

    def print_json(self, value: Any) -> None:
        """Print one JSON document to standard output."""
        self.stdout.write(json.dumps(value, indent=2))


def operator() -> str:
    """Return the name of the operator at the command line, for logs and the audit log."""
    try:
        name = getpass.getuser().encode(errors="replace").decode()  # Replace undecodable bytes.
        return f"{name} (command line)"
    except (ImportError, KeyError, OSError):  # In a container, the user may have no name.
        return "command line"


def iso(when: datetime | None) -> str | None:
    """Format a time as RFC 3339 in UTC, without fractions of a second. Returns None for None."""
    return format_rfc3339(when) if when else None
