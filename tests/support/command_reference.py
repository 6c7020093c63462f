"""A command that describes the `manage.py` commands of the package for docs/commands.md.

python -m tests.support.command_reference

Writes the descriptions in docs/commands.md again. Run the command after you change an option or a help text.
"""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Iterator

import django
from django.core.management import load_command_class

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "commands.md"
BEGIN, END = "<!-- commands: begin -->\n", "<!-- commands: end -->\n"
COMMANDS = ("instaccess_init", "instaccess_keys", "instaccess_tokens")
_COMMON = {
    "help",
    "version",
    "verbosity",
    "settings",
    "pythonpath",
    "traceback",
    "no_color",
    "force_color",
    "skip_checks",
}


def subcommands(name: str) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each subcommand of a command of this package, by name."""
    parser = load_command_class("instaccess", name).create_parser("manage.py", name)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def markdown() -> str:
    """Return a section for each command, with a subsection and a table of options for each subcommand."""
    return "".join(_sections())


def _sections() -> Iterator[str]:
    for name in COMMANDS:
        yield f"## {name}\n\n{_wrap(load_command_class('instaccess', name).help)}\n\n"
        for subcommand, parser in subcommands(name).items():
            yield f"### {name} {subcommand}\n\n{_wrap(parser.description or '')}\n\n"
            rows = [_row(action) for action in parser._actions if action.dest not in _COMMON]
            if rows:
                yield "| argument | meaning |\n|---|---|\n" + "".join(rows) + "\n"


def _row(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        value = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else value
    names = [f"{option} {value}".strip() for option in action.option_strings] or [value]
    required = "Required. " if action.required or not action.option_strings else ""
    return f"| {', '.join(f'`{name}`' for name in names)} | {required}{_escape(action.help or '')} |\n"


def _wrap(text: str) -> str:
    return textwrap.fill(_escape(text), width=120, break_long_words=False, break_on_hyphens=False)


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
    django.setup()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + markdown() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
