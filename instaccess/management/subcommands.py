"""What commands with several things to do share: which one, `--json`, and errors in words for the operator."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from ..exceptions import InstAccessError


class SubcommandCommand(BaseCommand):
    """Does what the option `subcommand` names, in the method of that name behind an underscore."""

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


def iso(moment: datetime | None) -> str | None:
    """A time as people and scripts both read it: RFC 3339, UTC, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None
