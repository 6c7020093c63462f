"""Admin actions that revoke tokens: the selected tokens, or all live tokens of their users or applications.

Each action opens a confirmation page that counts the live tokens and asks for a reason. The tokens are revoked when
the user submits this page. The audit rows record the reason and the user who revoked the tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
"""The maximum number of users or applications that the confirmation page names."""

MOST_CHOSEN = 1000
"""The maximum number of selected rows for the actions on users and applications. A larger selection is refused."""


class TokenActions(ReadOnlyAdmin):
    """An admin of read-only issued tokens, with actions that revoke tokens."""

    actions = ["revoke_chosen", "revoke_users", "revoke_applications"]

    def has_revoke_tokens_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may revoke tokens. Permission to view the audit log is not enough."""
        return request.user.has_perm("instaccess.revoke_tokens")

    @admin.action(description=gettext_lazy("Revoke the selected tokens…"), permissions=["revoke_tokens"])
    def revoke_chosen(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> TemplateResponse | None:
        condition = Q(pk__in=queryset.order_by().values("pk"))
        return self._revoke(request, "revoke_chosen", condition, _("Revoke the selected tokens"))

    @admin.action(
        description=gettext_lazy("Revoke all live tokens of the selected users…"), permissions=["revoke_tokens"]
    )
    def revoke_users(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> TemplateResponse | None:
        related = users.user_relations("user", "real_user")
        rows = queryset.order_by().select_related(*related)[: MOST_CHOSEN + 1]
        if len(rows) > MOST_CHOSEN:
            self._refuse_selection(request)
            return None
        # Include the real user of a masquerade, because the real user has the token.
        names = {
            uuid: users.display_name(user, uuid, recorded_name) or uuid
            for row in rows
            for user, uuid, recorded_name in (
                (row.user, row.user_uuid, row.user_name),
                (row.real_user, row.real_user_uuid, row.real_user_name),
            )
            if uuid
        }
        condition = Q(user_uuid__in=names) | Q(real_user_uuid__in=names)
        title = _("Revoke all live tokens of the selected users")
        scopes = [audit.Scope.user(uuid) for uuid in names]
        return self._revoke(request, "revoke_users", condition, title, owners=names.values(), scopes=scopes)

    @admin.action(
        description=gettext_lazy("Revoke all live tokens of the selected applications…"),
        permissions=["revoke_tokens"],
    )
    def revoke_applications(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> TemplateResponse | None:
        rows = queryset.order_by().values_list("client_id", flat=True)[: MOST_CHOSEN + 1]
        if len(rows) > MOST_CHOSEN:
            self._refuse_selection(request)
            return None
        clients = set(rows) - {""}
        title = _("Revoke all live tokens of the selected applications")
        return self._revoke(request, "revoke_applications", Q(client_id__in=clients), title, owners=clients)

    def _refuse_selection(self, request: HttpRequest) -> None:
        text = _("No tokens were revoked. Select at most %(count)d tokens.") % {"count": MOST_CHOSEN}
        self.message_user(request, text, messages.ERROR)

    def _revoke(
        self,
        request: HttpRequest,
        action: str,
        condition: Q,
        title: str,
        *,
        owners: Iterable[str] = (),
        scopes: Sequence[audit.Scope] = (),
    ) -> TemplateResponse | None:
        tokens = audit.revocable_tokens().filter(condition)
        form = RevokeForm(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            count = audit.revoke(
                tokens,
                keks=keys.keks_for_revocation(),
                reason=form.cleaned_data["reason"],
                by=request.user,
                scopes=scopes,
            )
            self.message_user(
                request,
                ngettext("%(count)d live token was revoked.", "%(count)d live tokens were revoked.", count)
                % {"count": count},
                messages.SUCCESS if count else messages.WARNING,
            )
            return None
        names = sorted(owners)
        effects = [
            *([_("The live tokens of %(names)s are revoked.") % {"names": _join_names(names)}] if names else []),
            _("Live tokens to revoke: %(count)d. Gateways refuse the tokens within five seconds.")
            % {"count": tokens.count()},
            _("Services that clients reach without a gateway accept each token until its expiry."),
            _("OAuth2 access tokens stay valid, so clients can get new InstAccess tokens."),
        ]
        chosen = [(ACTION_CHECKBOX_NAME, pk) for pk in request.POST.getlist(ACTION_CHECKBOX_NAME)]
        across = [("select_across", request.POST.get("select_across", "0"))]
        hidden = [("action", action), *across, *chosen]
        return render_confirmation(
            self, request, form, title=title, button=_("Revoke tokens"), effects=effects, hidden=hidden
        )


def _join_names(names: list[str]) -> str:
    rest = len(names) - MOST_NAMED
    listed = ", ".join(names[:MOST_NAMED])
    if rest <= 0:
        return listed
    return ngettext("%(names)s and %(count)d other", "%(names)s and %(count)d others", rest) % {
        "names": listed,
        "count": rest,
    }
