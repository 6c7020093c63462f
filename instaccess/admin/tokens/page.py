"""The admin pages of issued tokens, which show users, applications, client addresses and times."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext, pgettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from ... import audit, users
from ...models import IssuedToken
from ..common import label_cell, time_element
from ..dashboard.page import DashboardPage
from ..inspector.pages import InspectorPages
from . import pagination, search
from .access_filter import AccessFilter
from .chart import build_chart
from .detail import DetailPages
from .export import ExportPages
from .filters import AccountFilter, ClientFilter, MasqueradeFilter, PeriodFilter, StatusFilter
from .pagination import BoundedPaginator


@admin.register(IssuedToken)
class IssuedTokenAdmin(DashboardPage, InspectorPages, ExportPages, DetailPages):
    list_display = ["when", "status", "user_cell", "actor_cell", "client_cell", "ip_address", "until", "jti"]
    list_display_links = ["when", "jti"]
    list_filter = [StatusFilter, PeriodFilter, AccessFilter, MasqueradeFilter, ClientFilter, AccountFilter]
    ordering = ["-issued_at", "-id"]
    # A page has few rows, because rendering the rows takes most of the response time.
    list_per_page = 20
    # Replace Django's paginator, and disable the full result count and the facets, because each of them counts all
    # rows.
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    # Django shows a search box only if `search_fields` is not empty. `get_search_results` implements the search.
    search_fields = ["jti", "user_uuid", "client_id", "ip_address"]
    search_help_text = _(
        "Enter complete values: a token id, user name, user uuid, client id or IP address. If you combine values, "
        "put a name with spaces in quotation marks."
    )
    fieldsets = [
        (None, {"fields": ["jti", "status", "issued", "expires"]}),
        (
            _("User"),
            {"fields": ["subject", "user_name", "user_uuid"]},
        ),
        (
            _("Actor"),
            {
                "fields": ["actor", "actor_name", "actor_uuid"],
                "description": _(
                    "If the token was requested in a masquerade, the actor is the real user who requested the token. "
                    "For all other tokens, these fields are empty."
                ),
            },
        ),
        (_("Application and client address"), {"fields": ["client", "access_token_pk", "ip_address", "user_agent"]}),
        (_("Account"), {"fields": ["account_uuid", "canvas_domain"]}),
        (_("Keys"), {"fields": ["signing_kid", "encryption_kid"]}),
        (_("Revocation"), {"fields": ["revoked", "revoked_by", "revocation_reason"]}),
    ]

    class Media:
        css = {"all": ["instaccess/admin.css", "instaccess/lists.css", "instaccess/chart.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[IssuedToken]:
        return IssuedToken._default_manager.order_by(*self.ordering)

    def get_list_select_related(self, request: HttpRequest) -> list[str]:
        return [*users.user_relations("user", "real_user"), "application"]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        context = {"title": _("Issued tokens"), "counted": pagination.COUNTED}
        response = super().changelist_view(request, context | (extra_context or {}))
        data = getattr(response, "context_data", None) or {}
        if "cl" in data:
            data["chart"] = build_chart(data["cl"])
        return response

    # To save space, only the headings contain "UTC", and the expiry omits the date if it equals the date of issue.
    @admin.display(description=_("issued (UTC)"), ordering="issued_at")
    def when(self, token: IssuedToken) -> str:
        return _render_time(f"{token.issued_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}")

    @admin.display(description=_("expires (UTC)"))
    def until(self, token: IssuedToken) -> str:
        issued, expires = (time.astimezone(UTC) for time in (token.issued_at, token.expires_at))
        same_day = issued.date() == expires.date()
        time = _render_time(f"{expires:%H:%M:%S}" if same_day else f"{expires:%Y-%m-%d %H:%M:%S}")
        return label_cell(gettext("expires (UTC)"), time)

    @admin.display(description=_("issued"))
    def issued(self, token: IssuedToken) -> str:
        return time_element(token.issued_at)

    @admin.display(description=_("expires"))
    def expires(self, token: IssuedToken) -> str:
        return time_element(token.expires_at)

    @admin.display(description=_("status"))
    def status(self, token: IssuedToken) -> str:
        name = audit.token_status(token.revoked_at, token.expires_at, now=timezone.now())
        label = {
            "revoked": pgettext("status of a token", "revoked"),
            "live": gettext("live"),
            "expired": gettext("expired"),
        }[name]
        return format_html('<span class="instaccess-badge instaccess-badge-{}">{}</span>', name, label)

    @admin.display(description=_("user"))
    def subject(self, token: IssuedToken) -> str:
        return _render_user(token.user, token.user_uuid, token.user_name)

    @admin.display(description=_("actor"))
    def actor(self, token: IssuedToken) -> str:
        """Return the user who requested the token in a masquerade. Returns "-" for all other tokens."""
        if not token.real_user_uuid:
            return "-"
        return _render_user(token.real_user, token.real_user_uuid, token.real_user_name)

    # On a phone, a row is displayed as a card without column headings. The following methods therefore add the
    # heading to the cell.
    @admin.display(description=_("user"))
    def user_cell(self, token: IssuedToken) -> str:
        return label_cell(gettext("user"), self.subject(token))

    @admin.display(description=_("actor"))
    def actor_cell(self, token: IssuedToken) -> str:
        return label_cell(gettext("actor"), self.actor(token))

    @admin.display(description=_("application"))
    def client_cell(self, token: IssuedToken) -> str:
        return label_cell(gettext("application"), self.client(token))

    @admin.display(description=_("actor name"))
    def actor_name(self, token: IssuedToken) -> str:
        return token.real_user_name or "-"

    @admin.display(description=_("actor uuid"))
    def actor_uuid(self, token: IssuedToken) -> str:
        return token.real_user_uuid or "-"

    @admin.display(description=_("application"))
    def client(self, token: IssuedToken) -> str:
        """Return the name and the client id of the application.

        Returns only the client id if the foreign key does not match the client id. The HMAC of the row covers the
        client id, but not the foreign key.
        """
        if token.application is None or token.application.client_id != token.client_id:
            return _render_id(token.client_id or "-")
        return format_html('{} <span class="instaccess-beside">{}</span>', str(token.application), token.client_id)

    @admin.display(description=pgettext_lazy("time", "revoked"))
    def revoked(self, token: IssuedToken) -> str:
        return time_element(token.revoked_at)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[IssuedToken], search_term: str
    ) -> tuple[QuerySet[IssuedToken], bool]:
        """Return the rows that match every search term. Each searched column has an index, for a fast search."""
        for term in search.find_terms(search_term):
            queryset = queryset.filter(search.tokens_matching(term))
        return queryset, False


def _render_user(user: Any, uuid: str, recorded_name: str) -> str:
    name = users.display_name(user, uuid, recorded_name)
    return _render_id(uuid) if name is None else name


def _render_id(text: str) -> str:
    return format_html('<span class="instaccess-id">{}</span>', text)


def _render_time(text: str) -> str:
    return format_html('<time class="nowrap">{}</time>', text)
