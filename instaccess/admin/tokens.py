"""Issued tokens: who had access, as whom, through what, from where, until when."""

from __future__ import annotations

import ipaddress
import uuid
from contextlib import suppress
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..models import IssuedToken
from .readonly import ReadOnlyAdmin


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
                return queryset.filter(revoked_at=None, expires_at__gt=now)
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
class IssuedTokenAdmin(ReadOnlyAdmin):
    list_display = ["issued_at", "status", "user", "real_user", "application", "ip_address", "expires_at", "jti"]
    list_display_links = ["issued_at", "jti"]
    list_filter = [StatusFilter, MasqueradeFilter, "application"]
    list_select_related = ["user", "real_user", "application"]
    date_hierarchy = "issued_at"
    ordering = ["-issued_at", "-id"]
    show_full_result_count = False
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
        "issued_at",
        "expires_at",
        "signing_kid",
        "encryption_kid",
        "revoked_at",
        "revoked_by",
        "revocation_reason",
    ]

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
    users = get_user_model()._default_manager.filter(**{get_user_model().USERNAME_FIELD: term})
    condition = Q(client_id=term) | Q(user__in=users) | Q(real_user__in=users) | Q(user_uuid=term)
    with suppress(ValueError):
        condition |= Q(jti=uuid.UUID(term))
    with suppress(ValueError):
        condition |= Q(ip_address=str(ipaddress.ip_address(term)))
    return condition
