"""The actions on issued tokens: revoke the chosen ones, or all that their users or applications have.

Each opens a page that counts what is live, asks why, and acts when that is sent. Who and why stand in the audit rows.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ... import audit, keys, users
from ...models import IssuedToken
from ..common import ReadOnlyAdmin, render_confirmation
from ..forms import RevokeForm

MOST_NAMED = 20

MOST_CHOSEN = 1000
"""Rows of which the users or applications are looked up. More are not chosen by hand, and none is passed over."""


class TokenActions(ReadOnlyAdmin):
    """Rows to look at, and the acts on them."""

    actions = ["revoke_chosen", "revoke_users", "revoke_applications"]

    def has_revoke_tokens_permission(self, request: HttpRequest) -> bool:
        """May revoke. Seeing the audit is another permission."""
        return request.user.has_perm("instaccess.revoke_tokens")

    @admin.action(description=gettext_lazy("Revoke chosen tokens…"), permissions=["revoke_tokens"])
    def revoke_chosen(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> TemplateResponse | None:
        condition = Q(pk__in=queryset.order_by().values("pk"))
        return self._revoke(request, "revoke_chosen", condition, _("Revoke the chosen tokens"))

    @admin.action(description=gettext_lazy("Revoke everything of these users…"), permissions=["revoke_tokens"])
    def revoke_users(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> TemplateResponse | None:
        related = users.user_relations("user", "real_user")
        rows = queryset.order_by().select_related(*related)[: MOST_CHOSEN + 1]
        if len(rows) > MOST_CHOSEN:
            self._too_many(request)
            return None
        # For a masquerade, whoever really had the token is meant too.
        pairs = [
            pair
            for row in rows
            for pair in ((row.user, row.user_uuid), (row.real_user, row.real_user_uuid))
            if pair[1]
        ]
        names = {uuid: users.display_name(user, uuid) or uuid for user, uuid in pairs}
        condition = Q(user_uuid__in=names) | Q(real_user_uuid__in=names)
        title = _("Revoke all live tokens of these users")
        return self._revoke(request, "revoke_users", condition, title, of=names.values())

    @admin.action(description=gettext_lazy("Revoke everything of these applications…"), permissions=["revoke_tokens"])
    def revoke_applications(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> TemplateResponse | None:
        rows = queryset.order_by().values_list("client_id", flat=True)[: MOST_CHOSEN + 1]
        if len(rows) > MOST_CHOSEN:
            self._too_many(request)
            return None
        clients = set(rows) - {""}
        title = _("Revoke all live tokens of these applications")
        return self._revoke(request, "revoke_applications", Q(client_id__in=clients), title, of=clients)

    def _too_many(self, request: HttpRequest) -> None:
        text = _("Nothing was revoked: choose at most %(count)d tokens.") % {"count": MOST_CHOSEN}
        self.message_user(request, text, messages.ERROR)

    def _revoke(
        self, request: HttpRequest, action: str, condition: Q, title: str, *, of: Iterable[str] = ()
    ) -> TemplateResponse | None:
        tokens = audit.revocable_tokens().filter(condition)
        form = RevokeForm(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            count = audit.revoke(
                tokens, keks=keys.keks_for_revocation(), reason=form.cleaned_data["reason"], by=request.user
            )
            self.message_user(
                request,
                ngettext("%(count)d live token was revoked.", "%(count)d live tokens were revoked.", count)
                % {"count": count},
                messages.SUCCESS if count else messages.WARNING,
            )
            return None
        names = sorted(of)
        effects = [
            *([_("Whose: %(names)s.") % {"names": _listed(names)}] if names else []),
            _("Every gateway refuses these live tokens within five seconds: %(count)d.") % {"count": tokens.count()},
            _("OAuth2 access tokens are not touched: with one, a new token can be got."),
        ]
        chosen = [(ACTION_CHECKBOX_NAME, pk) for pk in request.POST.getlist(ACTION_CHECKBOX_NAME)]
        across = [("select_across", request.POST.get("select_across", "0"))]
        hidden = [("action", action), *across, *chosen]
        return render_confirmation(
            self, request, form, title=title, button=_("Revoke"), effects=effects, hidden=hidden
        )


def _listed(names: list[str]) -> str:
    rest = len(names) - MOST_NAMED
    listed = ", ".join(names[:MOST_NAMED])
    if rest <= 0:
        return listed
    return ngettext("%(names)s and %(count)d other", "%(names)s and %(count)d others", rest) % {
        "names": listed,
        "count": rest,
    }
