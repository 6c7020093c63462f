"""`manage.py instaccess_init`: the keys a deployment starts with."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DbError

from ... import keys
from ...exceptions import InstAccessError


class Command(BaseCommand):
    help = (
        "Make the keys that are missing: a current and a future signing key, and a current encryption key with both "
        "halves, so that one deployment works alone. Run it once after `migrate`; running it again changes nothing."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = keys.init()
        except InstAccessError as error:
            raise CommandError(f"No key was made: {error.detail}.") from error
        except DbError as error:
            raise CommandError(
                f"No key was made, the database says: {error}. Has `python manage.py migrate` been run?"
            ) from error
        for key in made:
            self.stdout.write(self.style.SUCCESS(f"Made the {key.status} {key.get_use_display()} key {key.kid}"))
        if not made:
            self.stdout.write("All keys are there; nothing changed.")
