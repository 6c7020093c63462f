"""The access token that a text stands for, with its application, its user and the user's uuid: one fixed statement.

Django compiles a query anew each time it is run; over these four tables that takes longer than running it. So the
statement is written once for each database and set of models. Wherever it might say something else than the query
would, `find` says so, and the caller runs the query.
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

# What the toolkit's validator, the issuer and its log read. A column that is left out is fetched by Django when
# somebody reads it after all, at the price of another query.
_OF_TOKEN = ("user", "application", "expires", "scope", "resource")
_OF_APPLICATION = ("client_id",)
_OF_USER = ("is_active", "is_superuser")

_Converter = Callable[[Any, Any, Any], Any]


class NotFixed(Exception):
    """The models are such that one statement would not do."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The columns of one model in the statement's rows."""

    model: type[models.Model]
    names: tuple[str, ...]
    start: int
    stop: int
    converters: tuple[tuple[int, tuple[_Converter, ...], Any], ...]

    def instance(self, alias: str, connection: Any, row: Sequence[Any]) -> Any:
        values = list(row[self.start : self.stop])
        if values[0] is None:
            return None
        for place, converters, expression in self.converters:
            for convert in converters:
                values[place] = convert(values[place], expression, connection)
        return self.model.from_db(alias, self.names, values)


@dataclass(frozen=True, slots=True)
class _Statement:
    sql: str
    token: _Part
    application: _Part
    user: _Part
    identity: _Part | None


def find(checksum: str) -> Any:
    """The access token with this SHA-256 (hexadecimal), or None.

    Raises NotFixed where a query must be run instead.
    """
    token_model, application_model, user_model = _models()
    alias = router.db_for_read(token_model)
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
    # As `select_related` does: they were found through these references, so there is nothing to check about them.
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
    """Which they are is settled when a process starts: migrations and references are made for them."""
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
    """The statement for these models on this database; None where they need a query of their own.

    `slim`: nobody's hook is handed the objects. Then, and where a model is the toolkit's or Django's own, only the
    columns that are used come along.
    """
    # A manager of their own may choose among the tokens, or its queryset. (Django follows references past managers.)
    chooses = type(token._default_manager) is not models.Manager
    if chooses or any(model._meta.parents for model in (token, application, user)):
        return None
    connection = connections[alias]
    quote = connection.ops.quote_name
    columns: list[str] = []

    def column(model: type[models.Model], name: str | None = None) -> str:
        field: Any = model._meta.get_field(name) if name else model._meta.pk
        return quote(field.column)

    def target(reference: str) -> str:
        # Not always the primary key: a token model of the project's own may refer `to_field`.
        field: Any = token._meta.get_field(reference)
        return quote(field.target_field.column)

    def part(model: type[models.Model], table: str, wanted: Sequence[str] | None) -> _Part:
        chosen = [
            field
            for field in model._meta.concrete_fields
            if wanted is None or field.primary_key or field.name in wanted
        ]
        chosen.sort(key=lambda field: not field.primary_key)  # first, to tell whether there is a row at all
        start = len(columns)
        columns.extend(f"{table}.{quote(str(field.column))}" for field in chosen)
        converters = []
        for place, field in enumerate(chosen):
            expression = field.get_col(table)
            found = (*connection.ops.get_db_converters(expression), *expression.get_db_converters(connection))
            if found:
                converters.append((place, found, expression))
        names = tuple(field.attname for field in chosen)
        return _Part(model, names, start, len(columns), tuple(converters))

    named = {user.USERNAME_FIELD, user_uuid_field}  # type: ignore[attr-defined]
    parts = {
        "token": part(token, "t", _OF_TOKEN if slim and _is_toolkits(token) else None),
        "application": part(application, "a", _OF_APPLICATION if slim and _is_toolkits(application) else None),
        "user": part(user, "u", [*_OF_USER, *filter(None, named)] if slim else None),
    }
    text = "".join(
        f" LEFT JOIN {quote(model._meta.db_table)} {table}"
        f" ON {table}.{target(reference)} = t.{column(token, reference)}"
        for table, model, reference in (("a", application, "application"), ("u", user, "user"))
    )
    identity = None
    if user_uuid_field is None:
        identity = part(UserIdentity, "i", ["uuid"])
        text += f" LEFT JOIN {quote(UserIdentity._meta.db_table)} i ON i.{column(UserIdentity)} = u.{column(user)}"
    table, checksum = quote(token._meta.db_table), column(token, "token_checksum")
    sql = f"SELECT {', '.join(columns)} FROM {table} t{text} WHERE t.{checksum} = %s"  # noqa: S608  (names alone)
    return _Statement(sql, parts["token"], parts["application"], parts["user"], identity)


def _is_toolkits(model: type[models.Model]) -> bool:
    return model._meta.label.startswith("oauth2_provider.")
