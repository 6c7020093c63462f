"""The command `manage.py instaccess_init`, which generates the initial keys of a deployment."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from ... import keys
from ...exceptions import InstAccessError
from ..base import OperatorCommand


class Command(OperatorCommand):
    failure = "No key was generated. "
    help = (
        "Generate the keys that are missing: a current and a future signing key, and a current encryption key with "
        "its private key. With these keys, one deployment can issue and decrypt tokens. Run this command once after "
        "`migrate`. If all keys exist, the command changes nothing."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            generated = keys.init()
        except InstAccessError as error:
            raise CommandError(f"No key was generated: {error.detail}.") from error
        for key in generated:
            self.stdout.write(self.style.SUCCESS(f"Generated the {key.status} {key.get_use_display()} key {key.kid}"))
        if not generated:
            self.stdout.write("All keys exist; nothing was changed.")
