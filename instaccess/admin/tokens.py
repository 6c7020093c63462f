"""Issued tokens: who had access, as whom, through what, from where, until when."""

from __future__ import annotations

import ipaddress
import uuid
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from ..claims import MAX_LIFETIME
from ..models import IssuedToken
from .exporting import ExportPages
from .inspector import InspectorPages
from .readonly import utc
from .token_acts import TokenActs

COUNTED = 10_000
"""Rows that a list counts and pages through. Counting all of millions takes seconds; nobody pages that far."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Pages of the first `COUNTED` rows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        counted: int = rows.order_by()[:COUNTED].count()
        return counted


class AuditRows(QuerySet[IssuedToken]):
    """What the list asks for dates."""

    def datetimes(self, field_name: str, kind: str, *args: Any, **kwargs: Any) -> Any:
        """Years, months or days from the first row to the last. Django's own looks at every row for them."""
        first, last = (
            self.order_by(order).values_list(field_name, flat=True).first()
            for order in (field_name, f"-{field_name}")
        )
        found: dict[datetime, None] = {}
        if first and last:
            for number in range((last.date() - first.date()).days + 1):
                day = first.date() + timedelta(days=number)
                start = {"year": day.replace(month=1, day=1), "month": day.replace(day=1), "day": day}[kind]
                found[datetime.combine(start, time.min, UTC)] = None
        return list(found)


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


class MasqueradeFilter(admin.SimpleListFilter):
    """Tokens somebody got for themselves, or for somebody else."""

    title = _("masquerading")
    parameter_name = "masquerading"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("yes")), ("no", _("no"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> QuerySet[IssuedToken]:
        match self.value():
            case "yes":
                return queryset.exclude(real_user_uuid="")
            case "no":
                return queryset.filter(real_user_uuid="")
        return queryset


@admin.register(IssuedToken)
class IssuedTokenAdmin(InspectorPages, ExportPages, TokenActs):
    list_display = ["issued", "status", "subject", "real_user", "client", "ip_address", "jti"]
    list_display_links = ["issued", "jti"]
    list_filter = [StatusFilter, MasqueradeFilter, "application"]
    list_select_related = ["user", "real_user", "application"]
    date_hierarchy = "issued_at"
    ordering = ["-issued_at", "-id"]
    # Each of these would count rows to the end.
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    # What a term means is decided in get_search_results; the names here make the search box appear.
    search_fields = ["jti", "user_uuid", "client_id", "ip_address"]
    search_help_text = _("A token id, a user name or uuid, a client id, or an IP address; whole, not in part.")
    fields = [
        "jti",
        "status",
        "user",
        "user_uuid",
        "real_user",
        "real_user_uuid",
        "application",
        "client_id",
        "access_token_pk",
        "account_uuid",
        "canvas_domain",
        "ip_address",
        "user_agent",
        "issued",
        "expires",
        "signing_kid",
        "encryption_kid",
        "revoked",
        "revoked_by",
        "revocation_reason",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[IssuedToken]:
        return AuditRows(IssuedToken).order_by(*self.ordering)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        # Days and months to pick are UTC's, as the times beside them.
        with timezone.override(UTC):
            response = super().changelist_view(request, {"counted": COUNTED, **(extra_context or {})})
            return response.render() if isinstance(response, TemplateResponse) else response

    @admin.display(description=_("user"))
    def subject(self, token: IssuedToken) -> str:
        return str(token.user or token.user_uuid)

    @admin.display(description=_("application"))
    def client(self, token: IssuedToken) -> str:
        return str(token.application or token.client_id)

    @admin.display(description=_("issued"), ordering="issued_at")
    def issued(self, token: IssuedToken) -> str:
        return utc(token.issued_at)

    @admin.display(description=_("expires"))
    def expires(self, token: IssuedToken) -> str:
        return utc(token.expires_at)

    @admin.display(description=_("revoked"))
    def revoked(self, token: IssuedToken) -> str:
        return utc(token.revoked_at)

    @admin.display(description=_("status"))
    def status(self, token: IssuedToken) -> Any:
        if token.revoked_at is not None:
            return _("revoked")
        return _("live") if token.expires_at > timezone.now() else _("expired")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[IssuedToken], search_term: str
    ) -> tuple[QuerySet[IssuedToken], bool]:
        """Every term must match, each by equality on an indexed column: the audit may hold millions of rows."""
        for term in search_term.replace("\x00", "").split():
            queryset = queryset.filter(_matching(term))
        return queryset, False


def _matching(term: str) -> Q:
    user_model = get_user_model()
    # Asked first, so that what is asked of the big table is plain equality.
    users = list(user_model._default_manager.filter(**{user_model.USERNAME_FIELD: term}).values_list("pk", flat=True))
    condition = Q(client_id=term) | Q(user_uuid=term) | Q(real_user_uuid=term)
    if users:
        condition |= Q(user__in=users) | Q(real_user__in=users)
    with suppress(ValueError):
        value = uuid.UUID(term)
        condition |= Q(jti=value) | Q(user_uuid=str(value)) | Q(real_user_uuid=str(value))
    with suppress(ValueError):
        condition |= Q(ip_address=str(ipaddress.ip_address(term)))
    return condition
