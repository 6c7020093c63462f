"""Admin actions that revoke tokens: the selected tokens, or all live tokens of their users or applications.

Each action opens a confirmation page that counts the live tokens and asks for a reason. The tokens are revoked when
the user submits this page. The audit rows record the reason and the user who revoked the tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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
from ..forms import RevokeForm, RevokeUsersForm
from .oauth2_access import OAuth2Access, join_names

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
        columns = ("user_uuid", "user_name", "real_user_uuid", "real_user_name")
        rows = list(queryset.order_by().values_list(*columns)[: MOST_CHOSEN + 1])
        if len(rows) > MOST_CHOSEN:
            self._refuse_selection(request)
            return None
        # Include the real user of a masquerade, because the real user has the token.
        recorded = {uuid: name for row in rows for uuid, name in (row[:2], row[2:]) if uuid}
        existing = [(users.existing_uuid(user), user) for user in users.with_uuids(recorded)]
        names = {uuid: name or uuid for uuid, name in recorded.items()} | {uuid: str(user) for uuid, user in existing}
        condition = Q(user_uuid__in=names) | Q(real_user_uuid__in=names)
        title = _("Revoke all live tokens of the selected users")
        scopes = [audit.Scope.user(uuid) for uuid in names]
        # Only the users who requested the selected tokens have OAuth2 tokens with which clients can replace these
        # tokens.
        askers = {real_user_uuid or user_uuid for user_uuid, _name, real_user_uuid, _real_name in rows}
        others = [name for uuid, name in names.items() if uuid not in askers]
        oauth2 = OAuth2Access([user for uuid, user in existing if uuid in askers], others)
        return self._revoke(
            request, "revoke_users", condition, title, owners=names.values(), scopes=scopes, oauth2=oauth2
        )

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
        oauth2: OAuth2Access | None = None,
    ) -> TemplateResponse | None:
        tokens = audit.revocable_tokens().filter(condition)
        form_class = RevokeForm if oauth2 is None else RevokeUsersForm
        form = form_class(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            act: dict[str, Any] = {
                "keks": keys.keks_for_revocation(),
                "reason": form.cleaned_data["reason"],
                "by": request.user,
                "scopes": scopes,
            }
            if oauth2 is not None and form.cleaned_data["oauth2_tokens"]:
                revoked = audit.revoke_with_oauth2_tokens(tokens, oauth2.owners, **act)
                self._report(request, revoked.tokens, revoked.oauth2_tokens)
            else:
                self._report(request, audit.revoke(tokens, **act))
            return None
        names = sorted(owners)
        effects = [
            *([_("The live tokens of %(names)s are revoked.") % {"names": join_names(names)}] if names else []),
            _("Live tokens to revoke: %(count)d. Gateways refuse the tokens within five seconds.")
            % {"count": tokens.count()},
            _("Services that clients reach without a gateway accept each token until its expiry."),
            *(
                [_("OAuth2 access tokens stay valid, so clients can get new InstAccess tokens.")]
                if oauth2 is None
                else oauth2.describe()
            ),
        ]
        chosen = [(ACTION_CHECKBOX_NAME, pk) for pk in request.POST.getlist(ACTION_CHECKBOX_NAME)]
        across = [("select_across", request.POST.get("select_across", "0"))]
        hidden = [("action", action), *across, *chosen]
        return render_confirmation(
            self, request, form, title=title, button=_("Revoke tokens"), effects=effects, hidden=hidden
        )

    def _report(self, request: HttpRequest, count: int, oauth2_count: int = 0) -> None:
        """Show the number of revoked tokens, and of revoked OAuth2 tokens, on the next page."""
        text = ngettext("%(count)d live token was revoked.", "%(count)d live tokens were revoked.", count)
        texts = [text % {"count": count}]
        if oauth2_count:
            text = ngettext(
                "%(count)d OAuth2 token was revoked.", "%(count)d OAuth2 tokens were revoked.", oauth2_count
            )
            texts.append(text % {"count": oauth2_count})
        self.message_user(request, " ".join(texts), messages.SUCCESS if count or oauth2_count else messages.WARNING)
