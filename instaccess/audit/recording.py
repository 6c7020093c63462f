"""The audit row's INSERT, written once: Django compiles it anew for each row, which takes longer than running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.db import connections, models
from django.db.models.signals import post_save, pre_save

from ..models import IssuedToken


@dataclass(frozen=True, slots=True)
class _Insert:
    sql: str
    fields: tuple[Any, ...]
    verbatim: Mapping[str, type]
    returns_id: bool


def insert(record: IssuedToken, *, using: str) -> None:
    """What `record.save(using=using, force_insert=True)` does, by one fixed statement.

    Raises what that raises. Where a receiver waits for its signals, and on other databases than those the statement
    was written for, that is what runs.
    """
    connection = connections[using]
    statement = _statement(using, connection.vendor)
    if statement is None or pre_save.has_listeners(IssuedToken) or post_save.has_listeners(IssuedToken):
        record.save(using=using, force_insert=True)
        return
    values = []
    for field in statement.fields:
        value = getattr(record, field.attname)
        # NULL is nothing to prepare, nor is text for a column of text or a row's number for a reference to it.
        if value is not None and type(value) is not statement.verbatim.get(field.attname):
            value = field.get_db_prep_save(value, connection)
        values.append(value)
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, values)
        record.pk = cursor.fetchone()[0] if statement.returns_id else cursor.lastrowid
    record._state.adding = False
    record._state.db = using


@lru_cache(maxsize=8)
def _statement(using: str, vendor: str) -> _Insert | None:
    if vendor not in {"postgresql", "mysql", "sqlite"}:
        return None
    quote = connections[using].ops.quote_name
    meta = IssuedToken._meta
    fields = tuple(field for field in meta.concrete_fields if not field.primary_key)
    columns = ", ".join(quote(str(field.column)) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    sql = f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({marks})"  # noqa: S608  (names alone)
    returns_id = vendor == "postgresql"
    if returns_id:
        sql += f" RETURNING {quote(str(meta.pk.column))}"
    # Not their subclasses, which may prepare their values.
    plain: dict[type, type] = {models.CharField: str, models.AutoField: int, models.BigAutoField: int}
    targets: dict[str, Any] = {field.attname: getattr(field, "target_field", field) for field in fields}
    verbatim = {name: plain[type(target)] for name, target in targets.items() if type(target) in plain}
    return _Insert(sql, fields, verbatim, returns_id)
