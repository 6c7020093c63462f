"""The filters of the list of issued tokens. Each filter uses an index and limits the query for its choices."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _
from oauth2_provider.models import get_application_model

from ... import audit, charsets
from ...models import IssuedToken
from ...tokens import MAX_LIFETIME
from . import periods

OFFERED = 30
"""The maximum number of values that a filter offers. The URL of the list can contain other values."""

RECENT_ROWS = 1000
"""The maximum number of audit rows from which the account filter reads its choices, the latest rows first."""


class StatusFilter(admin.SimpleListFilter):
    """A filter by the status of tokens: live, expired or revoked."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("live", _("live")),
            ("expired", _("expired")),
            ("revoked", pgettext_lazy("status of a token", "revoked")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        now = timezone.now()
        match self.value():
            case "live":
                # Also compare `issued_at`, which has an index, so that the query is fast. All live tokens match,
                # because no token is valid for longer than MAX_LIFETIME.
                latest = now - timedelta(seconds=MAX_LIFETIME)
                return queryset.filter(revoked_at=None, expires_at__gt=now, issued_at__gt=latest)
            case "expired":
                return queryset.filter(revoked_at=None, expires_at__lte=now)
            case "revoked":
                return queryset.exclude(revoked_at=None)
        return queryset


class PeriodFilter(admin.SimpleListFilter):
    """A filter by the time of issue, such as the last 24 hours or the last 7 days."""

    title = _("period")
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(value, label) for value, (label, _length) in periods.CHOICES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        period = periods.chosen(self.value(), timezone.now())
        return queryset if period is None else queryset.filter(issued_at__gte=period.since)


class MasqueradeFilter(admin.SimpleListFilter):
    """A filter for tokens with, or without, a real user who masquerades as another user."""

    title = _("masquerading")
    parameter_name = "masquerading"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("yes")), ("no", _("no"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        match self.value():
            case "yes":
                # Compare with `>`, because databases don't use the index for the `<>` of `exclude`.
                return queryset.filter(real_user_uuid__gt="")
            case "no":
                return queryset.filter(real_user_uuid="")
        return queryset


class _ValueFilter(admin.SimpleListFilter):
    """A filter for rows with a given value in an indexed column.

    The page offers at most `OFFERED` values. A URL can also contain another value.
    """

    template = "admin/instaccess/issuedtoken/value_filter.html"
    column: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        choices = self.load_choices()
        self.has_more = len(choices) > OFFERED
        offered = dict(choices[:OFFERED])
        chosen = self.value()
        if chosen is not None and chosen not in offered:
            offered[chosen] = dict(choices).get(chosen) or self.label(chosen)
        return sorted(offered.items(), key=lambda choice: choice[1].casefold())

    def load_choices(self) -> list[tuple[str, str]]:
        """Return the values with their labels. If there are more than `OFFERED` values, the filter shows a note."""
        raise NotImplementedError

    def label(self, value: str) -> str:
        """Return the label of a value that is not in the result of `load_choices`."""
        raise NotImplementedError

    def has_output(self) -> bool:
        # A filter with only one value rarely changes the list. Show the filter anyway if a value was chosen, so that
        # the user can clear the filter.
        return len(self.lookup_choices) > 1 or self.value() is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        value = self.value()
        if value is None:
            return queryset
        return queryset.filter(**{self.column: audit.fit(value, self.column)})


class ClientFilter(_ValueFilter):
    """A filter by application. The choices are the existing applications, ordered by name.

    The filter compares the client id in the audit row, because the HMAC of the row covers the client id. The HMAC
    doesn't cover the foreign key.
    """

    title = _("application")
    parameter_name = column = "client_id"

    def load_choices(self) -> list[tuple[str, str]]:
        applications = get_application_model()._default_manager.order_by("name", "client_id")
        return [(application.client_id, str(application)) for application in applications[: OFFERED + 1]]

    def label(self, value: str) -> str:
        model = get_application_model()
        applications = model._default_manager.all()
        # Some databases raise an error for a comparison with a string that the column can't store.
        if not charsets.can_store(value, model._meta.get_field("client_id"), using=applications.db):
            return value
        application = applications.filter(client_id=value).first()
        return str(application) if application is not None else value or gettext("none")


class AccountFilter(_ValueFilter):
    """A filter by root account. The choices are the accounts and domains of the latest `RECENT_ROWS` tokens."""

    title = _("account")
    parameter_name = column = "account_uuid"

    def load_choices(self) -> list[tuple[str, str]]:
        latest = IssuedToken._default_manager.order_by("-issued_at").values_list("account_uuid", "canvas_domain")
        domains: dict[str, str] = {}
        for account_uuid, domain in latest[:RECENT_ROWS]:
            domains.setdefault(account_uuid, domain)
        return [(account_uuid, _label_account(account_uuid, domain)) for account_uuid, domain in domains.items()]

    def label(self, value: str) -> str:
        rows = IssuedToken._default_manager.filter(audit.filter_by_account(value)).order_by("-issued_at")
        return _label_account(value, rows.values_list("canvas_domain", flat=True).first() or "")


def _label_account(account_uuid: str, domain: str) -> str:
    return f"{domain} ({Truncator(account_uuid).chars(9)})" if domain else account_uuid
