"""The last run of each maintenance command, for monitoring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import Error as DbError
from django.db import router, transaction
from django.utils import timezone

from .. import database_errors
from ..logs import get_logger
from ..models import MaintenanceRun

logger = get_logger("instaccess.audit")


@contextmanager
def record_run(command: str) -> Iterator[None]:
    """Record the start, the end and the result of a command. The result is "failed" if the block raises an error.

    If a run can't be recorded, the command runs anyway, and the problem is logged.
    """
    _store(command, started_at=timezone.now(), finished_at=None, result=MaintenanceRun.Result.RUNNING)
    try:
        yield
    except BaseException:  # Ctrl-C also counts as a failed run.
        _store(command, finished_at=timezone.now(), result=MaintenanceRun.Result.FAILED)
        raise
    now = timezone.now()
    _store(command, finished_at=now, succeeded_at=now, result=MaintenanceRun.Result.SUCCEEDED)


def maintenance_runs() -> list[MaintenanceRun]:
    """Return the last run of each command, ordered by command. Raises DatabaseError."""
    return list(MaintenanceRun.objects.using(router.db_for_write(MaintenanceRun)).order_by("command"))


def _store(command: str, **columns: Any) -> None:
    alias = router.db_for_write(MaintenanceRun)
    runs = MaintenanceRun.objects.using(alias)
    try:
        # Use a savepoint, because a failed statement would break an open transaction of the caller.
        with transaction.atomic(using=alias):
            if not runs.filter(command=command).update(**columns):
                runs.get_or_create(command=command, defaults={"started_at": timezone.now(), **columns})
    except DbError as error:
        logger.warning(
            "the run of %(command)s could not be recorded (%(error)s): %(detail)s",
            command=command,
            error=type(error).__name__,
            detail=database_errors.describe(error),
        )
