"""`manage.py check --database`: there are keys, and the private ones can be decrypted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import Error as DbError
from django.db import connections, router

from ..exceptions import ConfigError, UnsealError
from ..models import Key
from . import provision


@register(Tags.database)
def check_keys(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """There are keys, and they open. Runs with `check --database` and before `migrate`."""
    if not databases or router.db_for_write(Key) not in databases:
        return []
    try:
        missing = provision.missing_keys()
        provision.check_sealed_keys()
    except DbError as error:
        return _away(router.db_for_write(Key), error)  # or not migrated yet, which `migrate` is about to mend
    except ConfigError:
        return []  # check_settings says it
    except UnsealError as error:
        return [Error(f"A sealed private key does not open: {error.detail}.", id="instaccess.E008")]
    if not missing:
        return []
    return [
        Warning(
            "There is no " + ", no ".join(f"{status} {use.label} key" for use, status in missing) + ".",
            hint="Run `python manage.py instaccess_init`.",
            id="instaccess.W008",
        )
    ]


def _away(alias: str, error: DbError) -> list[CheckMessage]:
    if connections[alias].in_atomic_block:
        return []  # where one error is followed by others, whatever it was
    try:
        connections[alias].introspection.table_names()
    except DbError:
        return [
            Error(
                f"The database {alias!r} can't be asked for keys: {type(error).__name__}.",
                hint=f"See that it runs, and look at DATABASES[{alias!r}].",
                id="instaccess.E009",
            )
        ]
    return []
