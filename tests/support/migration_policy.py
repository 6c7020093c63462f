"""The rules of docs/upgrades.md for migrations, which allow two releases to run on one database."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import migrations
from django.db.models import NOT_PROVIDED

_COMPATIBLE = (
    migrations.CreateModel,
    migrations.AddIndex,
    migrations.AlterModelOptions,
    migrations.AlterModelManagers,
)


def find_incompatible_operations(migration: migrations.Migration) -> Iterator[str]:
    """Yield a description of each operation that could break the previous release, or that can't be reversed."""
    for operation in migration.operations:
        where = f"{migration.name}: {operation.describe()}"
        if isinstance(operation, migrations.AddField):
            if not operation.field.null and operation.field.db_default is NOT_PROVIDED:
                yield f"{where}: the column must be nullable or have a db_default"
        elif isinstance(operation, migrations.RunPython):
            if operation.reverse_code is None:
                yield f"{where}: the operation can't be reversed"
        elif not isinstance(operation, _COMPATIBLE):
            yield f"{where}: the previous release may need what this operation changes"
