"""System checks of the stored keys: the required keys exist, and the private keys can be unsealed."""

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
    """Check that keys exist and can be unsealed. Django runs this check with `check --database` and `migrate`."""
    if not databases or router.db_for_write(Key) not in databases:
        return []
    try:
        missing = provision.missing_keys()
        provision.check_sealed_keys()
    except DbError as error:
        return _check_database(router.db_for_write(Key), error)
    except ConfigError:
        return []  # `check_settings` reports the invalid setting.
    except UnsealError as error:
        return [Error(f"A sealed private key can't be unsealed: {error.detail}.", id="instaccess.E008")]
    if not missing:
        return []
    return [
        Warning(
            "There is no " + ", no ".join(f"{status} {use.label} key" for use, status in missing) + ".",
            hint="Run `python manage.py instaccess_init`.",
            id="instaccess.W008",
        )
    ]


def _check_database(alias: str, error: DbError) -> list[CheckMessage]:
    """Report a database that can't be reached. Missing tables aren't reported, because `migrate` creates them."""
    if connections[alias].in_atomic_block:
        return []  # In the failed transaction, every further query fails, so the cause can't be determined.
    try:
        connections[alias].introspection.table_names()
    except DbError:
        return [
            Error(
                f"Keys can't be read from the database {alias!r}: {type(error).__name__}.",
                hint=f"Check that the database server is running, and check DATABASES[{alias!r}].",
                id="instaccess.E009",
            )
        ]
    return []
