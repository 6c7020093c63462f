"""Functions that compute the HMACs of a new audit row, insert the row and commit it.

The INSERT statement is compiled only once. Django would compile the statement again for every row, which takes longer
than running it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.db import Error as DbError
from django.db import IntegrityError, connections, models, router, transaction
from django.db.models.signals import post_save, pre_save

from .. import charsets, database_errors
from ..conf import KeyEncryptionKey
from ..exceptions import AuditError
from ..models import IssuedToken
from . import names, row_hmac, writability
from .row_ids import row_id

# `_fit` replaces characters in these columns. HMACs are always ASCII, so `_fit` doesn't change HMACs.
_TEXT_COLUMNS = tuple(field for field in IssuedToken._meta.concrete_fields if isinstance(field, models.CharField))

_OPEN_TRANSACTION = (
    "the request is inside an open transaction, so a later error could undo the audit row. A middleware or a "
    "decorator of the project opened the transaction: exclude the issuing endpoint from this middleware or "
    "decorator. `python manage.py check` reports most middleware that opens a transaction (instaccess.W021)"
)


@dataclass(frozen=True, slots=True)
class _Insert:
    """A compiled INSERT statement for audit rows.

    Attributes:
        sql: the statement, with one placeholder per field.
        fields: the fields, in the order of the placeholders.
        verbatim: a mapping from the attribute name of a field to a type. The database driver accepts values of this
            type unchanged.
    """

    sql: str
    fields: tuple[Any, ...]
    verbatim: Mapping[str, type]


def commit(row: IssuedToken, *, keks: Sequence[KeyEncryptionKey]) -> None:
    """Compute the id and the HMACs of a new audit row, and insert and commit the row.

    The row is committed immediately, so that no later error can undo the INSERT. Before the HMACs are computed,
    characters that the database can't store are replaced (see `charsets.fit`), because the HMACs must match the
    stored text.

    Args:
        row: an unsaved audit row with all columns set except `id`, `mac` and `names_mac`.
        keks: the key-encryption keys; the HMACs are computed with the first key.

    Raises IntegrityError unchanged, for example because another row has the same jti or id. Raises AuditError if the
    row can't be inserted or committed for any other reason.
    """
    alias = router.db_for_write(IssuedToken)
    connection = connections[alias]
    # In autocommit mode, the INSERT is committed when the statement returns. If the host project has an open
    # transaction, a later error would roll the row back, so `durable` makes `atomic` raise RuntimeError. Django's
    # TestCase is exempt, because it wraps each test in a transaction.
    context: Any = nullcontext()
    try:
        if connection.in_atomic_block:
            context = transaction.atomic(using=alias, durable=True)
        elif not connection.get_autocommit():
            raise AuditError(f"DATABASES[{alias!r}]['AUTOCOMMIT'] is False, so the row would not be committed")
        with context:
            _fit(row, alias)
            row.pk = row_id(row.issued_at, row.jti)
            row.mac = row_hmac.authenticate(row_hmac.canonical_bytes(row), keks)
            row.names_mac = row_hmac.authenticate(names.canonical_bytes(row), keks)
            insert(row, using=alias)
    except IntegrityError:
        raise
    except (DbError, RuntimeError, ValueError) as error:
        if database_errors.is_outage(error):
            # The next health check of this process then inserts rows and rolls them back, to detect a full disk.
            writability.record_failure()
        if connection.in_atomic_block and isinstance(error, RuntimeError):
            raise AuditError(_OPEN_TRANSACTION) from error
        raise AuditError(
            f"the audit row was not written: {type(error).__name__}: {database_errors.describe(error)}"
        ) from error


def _fit(row: IssuedToken, using: str) -> None:
    """Replace, in an audit row, the characters that the text columns can't store (see `charsets.fit`)."""
    for column in _TEXT_COLUMNS:
        value = getattr(row, column.attname)
        # ASCII text is skipped to save time, because this function runs for every token.
        if isinstance(value, str) and (not value.isascii() or "\0" in value):
            setattr(row, column.attname, charsets.fit(value, column, using=using))


def insert(row: IssuedToken, *, using: str) -> None:
    """Insert an audit row with one fixed SQL statement.

    The inserted row is the same as with `row.save`, which takes longer. This function calls `row.save` instead if
    `pre_save` or `post_save` has receivers, or if there is no fixed statement for the database vendor. Raises the
    same errors as `row.save`.
    """
    connection = connections[using]
    statement = _statement(using, connection.vendor)
    if statement is None or pre_save.has_listeners(IssuedToken) or post_save.has_listeners(IssuedToken):
        row.save(using=using, force_insert=True)
        return
    values = []
    for field in statement.fields:
        value = getattr(row, field.attname)
        # Don't prepare NULL, a string for a text column, or an integer for a foreign key, because preparing is slow
        # and doesn't change these values.
        if value is not None and type(value) is not statement.verbatim.get(field.attname):
            value = field.get_db_prep_save(value, connection)
        values.append(value)
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, values)
    row._state.adding = False
    row._state.db = using


@lru_cache(maxsize=8)
def _statement(using: str, vendor: str) -> _Insert | None:
    if vendor not in {"postgresql", "mysql", "sqlite"}:
        return None
    quote = connections[using].ops.quote_name
    meta = IssuedToken._meta
    fields = tuple(meta.concrete_fields)
    columns = ", ".join(quote(str(field.column)) for field in fields)
    placeholders = ", ".join(["%s"] * len(fields))
    sql = f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({placeholders})"  # noqa: S608  (contains only table and column names)
    # Only these exact field classes are included, because a subclass may convert its values.
    plain: dict[type, type] = {models.CharField: str, models.AutoField: int, models.BigAutoField: int}
    targets: dict[str, Any] = {field.attname: getattr(field, "target_field", field) for field in fields}
    verbatim = {name: plain[type(target)] for name, target in targets.items() if type(target) in plain}
    return _Insert(sql, fields, verbatim)
