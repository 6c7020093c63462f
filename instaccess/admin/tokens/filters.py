"""What the list of issued tokens is narrowed down by. Each filter stays on indexes, however many rows there are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db import connections, router
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from oauth2_provider.models import get_application_model

from ...models import IssuedToken
from ...tokens import MAX_LIFETIME
from . import periods

OFFERED = 30
"""Values that a filter offers at the most. Others are found by searching, or from a row."""


class StatusFilter(admin.SimpleListFilter):
    """Live, expired or revoked."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("live", _("live")), ("expired", _("expired")), ("revoked", _("revoked"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        now = timezone.now()
        match self.value():
            case "live":
                # The bound on issued_at, which is indexed, changes no row: no token lives longer.
                latest = now - timedelta(seconds=MAX_LIFETIME)
                return queryset.filter(revoked_at=None, expires_at__gt=now, issued_at__gt=latest)
            case "expired":
                return queryset.filter(revoked_at=None, expires_at__lte=now)
            case "revoked":
                return queryset.exclude(revoked_at=None)
        return queryset


class PeriodFilter(admin.SimpleListFilter):
    """Issued within so many hours or days."""

    title = _("period")
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(value, label) for value, (label, _back) in periods.CHOICES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        period = periods.chosen(self.value(), timezone.now())
        return queryset if period is None else queryset.filter(issued_at__gte=period.since)


class MasqueradeFilter(admin.SimpleListFilter):
    """Tokens somebody got for themselves, or for somebody else."""

    title = _("masquerading")
    parameter_name = "masquerading"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("yes")), ("no", _("no"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        match self.value():
            case "yes":
                # Not `exclude`: no index serves "is not".
                return queryset.filter(real_user_uuid__gt="")
            case "no":
                return queryset.filter(real_user_uuid="")
        return queryset


class _ValueFilter(admin.SimpleListFilter):
    """The values a column has, up to `OFFERED` of them; the one in the address is honoured, whether offered or not.

    The column is the first one of an index.
    """

    template = "admin/instaccess/issuedtoken/value_filter.html"
    column: str
    beside = ""
    """A column whose latest value is read along with each."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        found = distinct(self.column, OFFERED + 1, beside=self.beside)
        self.has_more = len(found) > OFFERED
        offered = dict(found[:OFFERED])
        if (sent := self.value()) is not None:
            offered.setdefault(sent, "")
        return sorted(self.named(offered), key=lambda choice: choice[1].casefold())

    def named(self, values: dict[str, str]) -> list[tuple[str, str]]:
        """Each value with what people read, from the values and what was read along with them."""
        raise NotImplementedError

    def has_output(self) -> bool:
        # One value is no choice, but it is shown where it is what was chosen.
        return len(self.lookup_choices) > 1 or self.value() is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        value = self.value()
        if value is None:
            return queryset
        # PostgreSQL refuses a whole query for a NUL in it.
        return queryset.none() if "\x00" in value else queryset.filter(**{self.column: value})


class ClientFilter(_ValueFilter):
    """By application: by the client id that the row keeps, not by the reference, which no HMAC vouches for."""

    title = _("application")
    parameter_name = column = "client_id"

    def named(self, values: dict[str, str]) -> list[tuple[str, str]]:
        known = get_application_model()._default_manager.filter(client_id__in=[v for v in values if "\x00" not in v])
        names = {application.client_id: str(application) for application in known}
        return [(value, names.get(value) or value or gettext("none")) for value in values]


class AccountFilter(_ValueFilter):
    """By root account; what people know it by is its domain."""

    title = _("account")
    parameter_name = column = "account_uuid"
    beside = "canvas_domain"

    def named(self, values: dict[str, str]) -> list[tuple[str, str]]:
        return [
            (value, f"{domain} ({Truncator(value).chars(9)})" if domain else value)
            for value, domain in values.items()
        ]


def distinct(column: str, most: int, *, beside: str = "") -> list[tuple[str, str]]:
    """The first values of a text column that begins an index, `most` of them, in its order.

    A step into the index for each and one statement for all, where SELECT DISTINCT would read every row. With each
    value comes what the column `beside` says in its latest row; for that, the index goes on with `issued_at`.
    """
    connection = connections[router.db_for_read(IssuedToken)]
    name = connection.ops.quote_name
    table, field = name(IssuedToken._meta.db_table), name(column)
    latest = f"SELECT {name(beside or column)} FROM {table} WHERE {field} = found.value"  # noqa: S608
    statement = f"""
        WITH RECURSIVE found (value, number) AS (
            SELECT (SELECT {field} FROM {table} ORDER BY {field} LIMIT 1), 1
            UNION ALL
            SELECT (SELECT {field} FROM {table} WHERE {field} > found.value ORDER BY {field} LIMIT 1), number + 1
            FROM found WHERE found.value IS NOT NULL AND number < %s
        )
        SELECT value, ({latest} ORDER BY {name("issued_at")} DESC LIMIT 1)
        FROM found WHERE value IS NOT NULL ORDER BY number
    """  # noqa: S608  (names of our own table and columns)
    with connection.cursor() as cursor:
        cursor.execute(statement, [most])
        return [(value, said) for value, said in cursor.fetchall()]
