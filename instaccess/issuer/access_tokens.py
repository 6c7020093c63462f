"""Look-up of an access token with its application, its user and the user's uuid, by one fixed SQL statement.

Django compiles a query each time the query runs. For these four tables, compiling takes longer than running the
query. The SQL statement is therefore built once per database and set of models. If the statement might find other
rows than Django's query, `find` raises NotFixed, and the caller runs Django's query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connections, models, router
from oauth2_provider.models import get_access_token_model, get_application_model

from ..conf import conf
from ..models import UserIdentity

# Django-oauth-toolkit's validator and the issuer read these columns. If other code reads another column of an
# instance, Django loads this column with an additional query.
_TOKEN_COLUMNS = ("user", "application", "expires", "scope", "resource")
_APPLICATION_COLUMNS = ("client_id",)
_USER_COLUMNS = ("is_active", "is_superuser", "is_staff")

_Converter = Callable[[Any, Any, Any], Any]


class NotFixed(Exception):
    """The error for models that need Django's query, because the fixed statement might find other rows."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The columns of one model in the rows that the statement returns.

    Attributes:
        model: the model whose instances are built from the columns.
        names: the attribute names of the columns' fields. The primary key comes first.
        start, stop: the index of the model's first column in a row, and the index after the model's last column.
        converters: for each column that needs conversion: its index in `names`, the functions that convert the value,
            and the column expression that these functions receive.
    """

    model: type[models.Model]
    names: tuple[str, ...]
    start: int
    stop: int
    converters: tuple[tuple[int, tuple[_Converter, ...], Any], ...]

    def instance(self, alias: str, connection: Any, row: Sequence[Any]) -> Any:
        """Build the model instance from a row. Returns None if the row contains no instance of this model."""
        if row[self.start] is None:
            return None
        values = list(row[self.start : self.stop])
        for index, converters, expression in self.converters:
            for convert in converters:
                values[index] = convert(values[index], expression, connection)
        return self.model.from_db(alias, self.names, values)


@dataclass(frozen=True, slots=True)
class _Statement:
    """The SQL statement, and the columns of each model in the rows that the statement returns.

    `identity` is None if USER_UUID_FIELD is set, because the uuid is then a column of the user.
    """

    sql: str
    token: _Part
    application: _Part
    user: _Part
    identity: _Part | None


def find(checksum: str) -> Any:
    """Return the access token with this SHA-256 checksum (hexadecimal), or None.

    The application, the user and the user's identity are loaded with the token.

    Raises NotFixed if Django's query must be run instead.
    """
    token_model, application_model, user_model = _models()
    # Do not read from a replica, because a replica may lack a recent revocation of the access token or deactivation
    # of the user.
    alias = router.db_for_write(token_model)
    connection = connections[alias]
    statement = _statement(
        alias,
        connection.vendor,
        token_model,
        application_model,
        user_model,
        conf.user_uuid_field,
        conf.claims_hook is None and conf.masquerade_hook is None,
    )
    if statement is None:
        raise NotFixed
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, [checksum])
        row = cursor.fetchone()
    if row is None:
        return None
    token = statement.token.instance(alias, connection, row)
    # Fill the caches that Django's `select_related` fills. If a cache were empty, reading the related object would
    # run another query.
    if (application := statement.application.instance(alias, connection, row)) is not None:
        token._state.fields_cache["application"] = application
    if (user := statement.user.instance(alias, connection, row)) is not None:
        token._state.fields_cache["user"] = user
        if statement.identity is not None:
            identity = statement.identity.instance(alias, connection, row)
            if identity is not None:
                identity._state.fields_cache["user"] = user
                user._state.fields_cache["instaccess_identity"] = identity
    return token


@cache
def _models() -> tuple[type[models.Model], type[models.Model], type[models.Model]]:
    """Return the access token model, the application model and the user model.

    The result is cached, because the models can't change while a process runs.
    """
    return get_access_token_model(), get_application_model(), get_user_model()


@lru_cache(maxsize=32)
def _statement(
    alias: str,
    vendor: str,
    token: type[models.Model],
    application: type[models.Model],
    user: type[models.Model],
    user_uuid_field: str | None,
    slim: bool,
) -> _Statement | None:
    """Build the statement that loads an access token. Returns None if the models need Django's query.

    Args:
        alias, vendor: the alias of the database in DATABASES, and its vendor, such as `postgresql`.
        token, application, user: the three models that `_models` returns.
        user_uuid_field: USER_UUID_FIELD, or None if the uuid is in `UserIdentity`.
        slim: whether to select only the columns that this package reads. Pass False if a hook of the project receives
            the instances.
    """
    # A token model with a custom manager needs Django's query, because the manager may filter the tokens. The
    # managers of the other models don't matter, because Django does not use these managers to follow foreign keys.
    # Django's query is also needed for a model with parent models, whose columns are in several tables.
    has_custom_manager = type(token._default_manager) is not models.Manager
    if has_custom_manager or any(model._meta.parents for model in (token, application, user)):
        return None
    connection = connections[alias]
    quote = connection.ops.quote_name
    columns: list[str] = []

    def column(model: type[models.Model], name: str | None = None) -> str:
        field: Any = model._meta.get_field(name) if name else model._meta.pk
        return quote(field.column)

    def target(reference: str) -> str:
        # Look up the target field, because the foreign key of a swapped token model may refer to a field other than
        # the primary key (`to_field`).
        field: Any = token._meta.get_field(reference)
        return quote(field.target_field.column)

    def part(model: type[models.Model], table: str, names: Sequence[str] | None) -> _Part:
        fields = [
            field
            for field in model._meta.concrete_fields
            if names is None or field.primary_key or field.name in names
        ]
        # The primary key comes first, because `instance` checks the first value. If the LEFT JOIN found no row, this
        # value is NULL.
        fields.sort(key=lambda field: not field.primary_key)
        start = len(columns)
        columns.extend(f"{table}.{quote(str(field.column))}" for field in fields)
        converters = []
        for index, field in enumerate(fields):
            expression = field.get_col(table)
            functions = (*connection.ops.get_db_converters(expression), *expression.get_db_converters(connection))
            if functions:
                converters.append((index, functions, expression))
        attnames = tuple(field.attname for field in fields)
        return _Part(model, attnames, start, len(columns), tuple(converters))

    identifying = {user.USERNAME_FIELD, user_uuid_field}  # type: ignore[attr-defined]
    parts = {
        "token": part(token, "t", _TOKEN_COLUMNS if slim and _is_toolkit_model(token) else None),
        "application": part(
            application, "a", _APPLICATION_COLUMNS if slim and _is_toolkit_model(application) else None
        ),
        "user": part(user, "u", [*_USER_COLUMNS, *filter(None, identifying)] if slim else None),
    }
    joins = "".join(
        f" LEFT JOIN {quote(model._meta.db_table)} {table}"
        f" ON {table}.{target(reference)} = t.{column(token, reference)}"
        for table, model, reference in (("a", application, "application"), ("u", user, "user"))
    )
    identity = None
    if user_uuid_field is None:
        identity = part(UserIdentity, "i", ["uuid"])
        joins += f" LEFT JOIN {quote(UserIdentity._meta.db_table)} i ON i.{column(UserIdentity)} = u.{column(user)}"
    table, checksum = quote(token._meta.db_table), column(token, "token_checksum")
    sql = f"SELECT {', '.join(columns)} FROM {table} t{joins} WHERE t.{checksum} = %s"  # noqa: S608  (only names of tables and columns)
    return _Statement(sql, parts["token"], parts["application"], parts["user"], identity)


def _is_toolkit_model(model: type[models.Model]) -> bool:
    """Return whether a model belongs to django-oauth-toolkit, and not to the project."""
    return model._meta.label.startswith("oauth2_provider.")
