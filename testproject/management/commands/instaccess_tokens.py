"""The subcommand `manage.py instaccess_tokens seed` of the test project, which generates audit rows."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import IntegrityError, connections, router, transaction
from django.utils import timezone

from instaccess.management.commands import instaccess_tokens
from instaccess.models import IssuedToken, RefusalCount
from testproject.seeding import Seeding

BATCH = 1000


class Command(instaccess_tokens.Command):
    help = f"{instaccess_tokens.Command.help} Generate audit rows (only in this test project)."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        [subparsers] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        text = "Generate audit rows for benchmarks, screenshots and demos."
        seed = subparsers.add_parser("seed", help=text, description=text)
        seed.add_argument("--rows", type=_positive, default=10_000, help="Number of rows (default: 10000).")
        seed.add_argument(
            "--days",
            type=_positive,
            default=400,
            help="Number of days over which the issue times are spread. The last day is today (default: 400).",
        )
        seed.add_argument("--seed", type=int, default=1, help="Seed of the random number generator (default: 1).")
        seed.add_argument("--json", action="store_true", help="Print one JSON document to standard output.")

    def _seed(self, options: dict[str, Any]) -> None:
        start = time.monotonic()
        alias = router.db_for_write(IssuedToken)
        try:
            # Use one transaction, so that an error doesn't leave an incomplete audit log.
            with transaction.atomic(using=alias):
                seeding = Seeding(
                    rows=options["rows"], days=options["days"], seed=options["seed"], now=timezone.now()
                )
                _write(seeding.tokens(), alias)
                refusals = 0
                for batch in _batches(seeding.refusals()):
                    RefusalCount.objects.using(alias).bulk_create(batch, ignore_conflicts=True)
                    refusals += sum(line.count for line in batch)
        except IntegrityError as error:
            raise CommandError(
                f"No rows were generated: {error}. If you used --seed {options['seed']} before, use another seed."
            ) from error
        seconds = time.monotonic() - start
        users = len(seeding.users)
        facts = {"rows": options["rows"], "refusals": refusals, "users": users, "seconds": round(seconds, 1)}
        text = (
            f"Generated {options['rows']} audit rows over {options['days']} days, for {users} users and some deleted "
            f"users, and {refusals} refusals, in {seconds:.1f} s."
        )
        self.print_result(options, facts, text)


def _write(tokens: Iterable[IssuedToken], alias: str) -> None:
    connection = connections[alias]
    if connection.vendor != "postgresql":
        for batch in _batches(tokens):
            IssuedToken.objects.using(alias).bulk_create(batch)
        return
    # Use COPY on PostgreSQL, because COPY is several times faster than INSERT.
    fields = IssuedToken._meta.concrete_fields
    names = [field.attname for field in fields]
    copying = f"COPY {IssuedToken._meta.db_table} ({', '.join(str(field.column) for field in fields)}) FROM STDIN"
    with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(copying) as copy:
        for token in tokens:
            copy.write_row([getattr(token, name) for name in names])


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
