"""Issued tokens: who had access, as whom, through what, from where, until when."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from ... import audit, users
from ...models import IssuedToken
from ..common import time_element
from ..inspector.pages import InspectorPages
from . import pagination, search
from .actions import TokenActions
from .chart import chart_of
from .export import ExportPages
from .filters import AccountFilter, ClientFilter, MasqueradeFilter, PeriodFilter, StatusFilter
from .pagination import BoundedPaginator


@admin.register(IssuedToken)
class IssuedTokenAdmin(InspectorPages, ExportPages, TokenActions):
    list_display = ["when", "status", "who", "as_whom", "client", "ip_address", "until", "jti"]
    list_display_links = ["when", "jti"]
    list_filter = [StatusFilter, PeriodFilter, MasqueradeFilter, ClientFilter, AccountFilter]
    ordering = ["-issued_at", "-id"]
    # Rows take the most time of a page by far: so it stays as quick when there are a hundred times as many.
    list_per_page = 20
    # Each of these would count rows to the end.
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    # What a term means is decided in get_search_results; the names here make the search box appear.
    search_fields = ["jti", "user_uuid", "client_id", "ip_address"]
    search_help_text = _("A token id, a user name or uuid, a client id, or an IP address; whole, not in part.")
    fieldsets = [
        (None, {"fields": ["jti", "status", "issued", "expires"]}),
        (_("Who"), {"fields": ["subject", "user_uuid", "real_subject", "real_user_uuid"]}),
        (_("Through what, and from where"), {"fields": ["client", "access_token_pk", "ip_address", "user_agent"]}),
        (_("Where to"), {"fields": ["account_uuid", "canvas_domain"]}),
        (_("Keys"), {"fields": ["signing_kid", "encryption_kid"]}),
        (_("Revocation"), {"fields": ["revoked", "revoked_by", "revocation_reason"]}),
    ]

    class Media:
        css = {"all": ["instaccess/admin.css", "instaccess/chart.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[IssuedToken]:
        return IssuedToken._default_manager.order_by(*self.ordering)

    def get_list_select_related(self, request: HttpRequest) -> list[str]:
        return [*users.user_relations("user", "real_user"), "application"]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        # PeriodFilter is the only way to choose a period: the chart shows the same period, and conditions such as
        # `issued_at__month` would read every row.
        if any(name.startswith("issued_at__") for name in request.GET):
            raise IncorrectLookupParameters("choose a period instead")
        return super().get_changelist_instance(request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        context = {"title": _("Issued tokens"), "counted": pagination.COUNTED}
        response = super().changelist_view(request, context | (extra_context or {}))
        data = getattr(response, "context_data", None) or {}
        if "cl" in data:
            data["chart"] = chart_of(data["cl"])
        return response

    # In the list UTC stands in the heading, and the day once.
    @admin.display(description=_("when (UTC)"), ordering="issued_at")
    def when(self, token: IssuedToken) -> str:
        return _time(f"{token.issued_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}")

    @admin.display(description=_("until (UTC)"))
    def until(self, token: IssuedToken) -> str:
        issued, expires = (moment.astimezone(UTC) for moment in (token.issued_at, token.expires_at))
        same_day = issued.date() == expires.date()
        return _time(f"{expires:%H:%M:%S}" if same_day else f"{expires:%Y-%m-%d %H:%M:%S}")

    @admin.display(description=_("issued"))
    def issued(self, token: IssuedToken) -> str:
        return time_element(token.issued_at)

    @admin.display(description=_("expires"))
    def expires(self, token: IssuedToken) -> str:
        return time_element(token.expires_at)

    @admin.display(description=_("status"))
    def status(self, token: IssuedToken) -> str:
        name = audit.token_status(token.revoked_at, token.expires_at, now=timezone.now())
        word = {"revoked": gettext("revoked"), "live": gettext("live"), "expired": gettext("expired")}[name]
        return format_html('<span class="instaccess-badge instaccess-badge-{}">{}</span>', name, word)

    @admin.display(description=pgettext_lazy("person", "who"))
    def who(self, token: IssuedToken) -> str:
        """Whoever had the token."""
        return self.real_subject(token) if token.real_user_uuid else self.subject(token)

    @admin.display(description=_("as whom"))
    def as_whom(self, token: IssuedToken) -> str:
        """In words where somebody masqueraded."""
        if not token.real_user_uuid:
            return "-"
        return format_html("<strong>{}</strong> {}", gettext("masquerading as"), self.subject(token))

    @admin.display(description=_("user"))
    def subject(self, token: IssuedToken) -> str:
        return _name(token.user, token.user_uuid)

    @admin.display(description=_("real user"))
    def real_subject(self, token: IssuedToken) -> str:
        return _name(token.real_user, token.real_user_uuid) if token.real_user_uuid else "-"

    @admin.display(description=_("application"))
    def client(self, token: IssuedToken) -> str:
        """Its name only where the reference is to the application of the client id, which the row's HMAC covers."""
        if token.application is None or token.application.client_id != token.client_id:
            return _id(token.client_id or "-")
        return format_html('{} <span class="instaccess-beside">{}</span>', str(token.application), token.client_id)

    @admin.display(description=_("revoked"))
    def revoked(self, token: IssuedToken) -> str:
        return time_element(token.revoked_at)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[IssuedToken], search_term: str
    ) -> tuple[QuerySet[IssuedToken], bool]:
        """Every term must match, each by equality on an indexed column: the audit may hold millions of rows."""
        for term in search.terms(search_term):
            queryset = queryset.filter(search.tokens_matching(term))
        return queryset, False


def _name(user: Any, uuid: str) -> str:
    name = users.display_name(user, uuid)
    return _id(uuid) if name is None else name


def _id(text: str) -> str:
    return format_html('<span class="instaccess-id">{}</span>', text)


def _time(text: str) -> str:
    return format_html('<time class="nowrap">{}</time>', text)
