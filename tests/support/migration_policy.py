"""The rules of docs/upgrades.md for migrations. The rules allow two successive releases to run on one database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import migrations
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED, Field

_COMPATIBLE = (
    migrations.CreateModel,
    migrations.AddIndex,
    migrations.AlterModelOptions,
    migrations.AlterModelManagers,
)


def find_incompatible_operations(migration: migrations.Migration, before: ProjectState) -> Iterator[str]:
    """Yield a description of each operation that could break the previous release, or that can't be reversed.

    Args:
        migration: the migration.
        before: the models before the migration.
    """
    state = before.clone()
    for operation in migration.operations:
        where = f"{migration.name}: {operation.describe()}"
        if isinstance(operation, migrations.AlterField):
            old = state.models[migration.app_label, operation.model_name_lower].fields[operation.name]
            if _column(old) != _column(operation.field):
                yield f"{where}: only the texts and the choices of a column may change"
        elif isinstance(operation, migrations.AddField):
            if not operation.field.null and operation.field.db_default is NOT_PROVIDED:
                yield f"{where}: the column must be nullable or have a db_default"
        elif isinstance(operation, migrations.RunPython):
            if operation.reverse_code is None:
                yield f"{where}: the operation can't be reversed"
        elif not isinstance(operation, _COMPATIBLE):
            yield f"{where}: the previous release may need what this operation changes"
        operation.state_forwards(migration.app_label, state)


def _column(field: Field[Any, Any]) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return the properties of a field that determine its database column."""
    _, path, arguments, options = field.deconstruct()
    return path, tuple(arguments), {name: options[name] for name in options.keys() - set(field.non_db_attrs)}
