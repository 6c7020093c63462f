"""What commands with several things to do share: which one, `--json`, and errors in words for the operator."""

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
    """Does what the option `subcommand` names, in the method of that name behind an underscore."""

    def add_subcommands(
        self, parser: CommandParser, texts: Mapping[str, str], *, parser_class: type[CommandParser] = CommandParser
    ) -> dict[str, CommandParser]:
        """A parser for each subcommand, with its text as help.

        Each takes the options that Django gives every command, too, and what stands before it holds: without that
        `… list --settings x` would be refused, with `--settings` in the usage printed above.
        """
        subparsers = parser.add_subparsers(dest="subcommand", required=True, parser_class=parser_class)
        sub = {name: subparsers.add_parser(name, help=text, description=text) for name, text in texts.items()}
        hidden: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        for each in sub.values():
            each.add_argument("-v", "--verbosity", type=int, choices=range(4), **hidden)
            for option in ("--settings", "--pythonpath"):
                each.add_argument(option, **hidden)
            for option in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
                each.add_argument(option, action="store_true", **hidden)
        return sub

    def handle(self, *args: Any, **options: Any) -> None:
        act: Callable[[dict[str, Any]], None] = getattr(self, "_" + options["subcommand"])
        try:
            act(options)
        except InstAccessError as error:
            raise CommandError(error.detail) from error
        except Error as error:
            raise CommandError(f"The database says: {error}. Has `python manage.py migrate` been run?") from error

    def done(self, options: dict[str, Any], facts: Any, text: str) -> None:
        """Tell what was done: the facts for `--json`, the text for people."""
        if options["json"]:
            self.tell_json(facts)
        else:
            self.stdout.write(text)

    def tell_json(self, value: Any) -> None:
        """One JSON document on standard output."""
        self.stdout.write(json.dumps(value, indent=2))


def operator() -> str:
    """Who is at the command line, for logs and the audit."""
    try:
        name = getpass.getuser().encode(errors="replace").decode()  # the environment may hold what is no text
        return f"{name} (command line)"
    except (ImportError, KeyError, OSError):  # a container's user may have no name
        return "command line"


def iso(when: datetime | None) -> str | None:
    """Format a time for people and scripts (RFC 3339, UTC, to the second). Returns None for None."""
    return format_rfc3339(when) if when else None
