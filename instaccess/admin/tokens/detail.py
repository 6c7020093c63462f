"""The page of one issued token: the next step, links to related pages, buttons for revocation, and the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.exceptions import NotRegistered
from django.contrib.admin.utils import quote, unquote
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from ... import audit, users
from ...models import IssuedToken, Key
from ...times import format_utc
from .actions import TokenActions

MOST_REFUSALS = 200
"""The maximum number of refusal counts that the page of a token reads."""


@dataclass(frozen=True)
class Link:
    """A link to a related page. `name` describes the page, and `text` is the text of the link."""

    name: str
    text: str
    url: str


@dataclass(frozen=True)
class Event:
    """An event in the history of a token."""

    time: str
    text: str


class DetailPages(TokenActions):
    """An admin of read-only issued tokens. The page of a token describes what happened, and what to do next."""

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if (token := kwargs.get("obj")) is not None:
            may_revoke = self.has_revoke_tokens_permission(request)
            status = audit.token_status(token.revoked_at, token.expires_at, now=timezone.now())
            context |= {
                "next_step": _describe_next_step(token, status, may_revoke=may_revoke),
                "links": [*self._object_links(request, token), *self._list_links(token)],
                "refusals": _count_refusals(token),
                "revoke_actions": _choose_actions(token, status) if may_revoke else [],
                "changelist_url": self._changelist_url(),
            }
        return super().render_change_form(request, context, *args, **kwargs)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        token = self.get_object(request, unquote(object_id))
        events = [] if token is None else sorted(_describe_events(token), key=lambda event: event.time)
        return super().history_view(request, object_id, {"events": events, **(extra_context or {})})

    def _object_links(self, request: HttpRequest, token: IssuedToken) -> Iterator[Link]:
        """Yield links to the users, the application and the keys that the user of the admin may view."""
        # Compare the ids, because an attacker may have modified a foreign key. The HMAC doesn't cover foreign keys.
        if token.user is not None and users.existing_uuid(token.user) == token.user_uuid:
            yield from self._object_link(request, _("User"), token.user)
        if token.real_user is not None and users.existing_uuid(token.real_user) == token.real_user_uuid:
            yield from self._object_link(request, _("Actor"), token.real_user)
        if token.application is not None and token.application.client_id == token.client_id:
            yield from self._object_link(request, _("Application"), token.application)
        names = {token.signing_kid: _("Signing key"), token.encryption_kid: _("Encryption key")}
        for key in Key.objects.filter(kid__in=[kid for kid in names if kid]).order_by("-use"):
            yield from self._object_link(request, names[key.kid], key, key.kid)

    def _object_link(self, request: HttpRequest, name: str, row: Any, text: str = "") -> Iterator[Link]:
        try:
            page = self.admin_site.get_model_admin(type(row))
        except NotRegistered:
            return
        if page.has_view_or_change_permission(request, row):
            view = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
            url = reverse(view, args=[quote(row.pk)], current_app=self.admin_site.name)
            yield Link(name, text or str(row), url)

    def _list_links(self, token: IssuedToken) -> Iterator[Link]:
        """Yield links to the tokens and refusals of the user and the actor, and to the tokens of the IP address."""
        for name, uuid, text in (
            (_("Tokens and refusals of the user"), token.user_uuid, _user_name(token)),
            (_("Tokens and refusals of the actor"), token.real_user_uuid, _actor_name(token)),
        ):
            if uuid:
                yield Link(name, text, self._search_url(uuid))
        if token.ip_address:
            yield Link(_("Tokens of the IP address"), token.ip_address, self._search_url(token.ip_address))

    def _search_url(self, term: str) -> str:
        # Quote a term with a space, because the search would split an unquoted term. If a project defines its own
        # uuids, a uuid can contain a space.
        quoted = term if term.split() == [term] else f'"{term}"'
        return f"{self._changelist_url()}?{urlencode({'q': quoted})}"

    def _changelist_url(self) -> str:
        return reverse("admin:instaccess_issuedtoken_changelist", current_app=self.admin_site.name)


def _user_name(token: IssuedToken) -> str:
    return users.display_name(token.user, token.user_uuid, token.user_name) or token.user_uuid


def _actor_name(token: IssuedToken) -> str:
    return users.display_name(token.real_user, token.real_user_uuid, token.real_user_name) or token.real_user_uuid


def _asker_name(token: IssuedToken) -> str:
    """Return the name of the user who requested the token. In a masquerade, this user is the actor."""
    return _actor_name(token) if token.real_user_uuid else _user_name(token)


def _choose_actions(token: IssuedToken, status: str) -> list[tuple[str, str]]:
    """Return the admin actions that revoke the token, or all tokens of its user and actor, with the button labels."""
    single = [("revoke_chosen", _("Revoke this token…"))] if status == "live" else []
    names = dict.fromkeys([_user_name(token), _asker_name(token)])
    every = _("Revoke all live tokens and OAuth2 tokens of %(names)s…") % {"names": ", ".join(names)}
    return [*single, ("revoke_users", every)]


def _describe_next_step(token: IssuedToken, status: str, *, may_revoke: bool) -> str:
    """Return what the status of the token means, and what to do next."""
    names = {"name": _asker_name(token), "time": format_utc(token.revoked_at or token.expires_at)}
    match status:
        case "live" if may_revoke:
            text = _(
                "%(name)s has access with this token until %(time)s. If the token or a device may have been stolen, "
                "revoke all live tokens and OAuth2 tokens of the user."
            )
        case "live":
            text = _(
                "%(name)s has access with this token until %(time)s. If the token or a device may have been stolen, "
                "ask an operator with the permission instaccess.revoke_tokens to revoke all live tokens and "
                "OAuth2 tokens of the user."
            )
        case "revoked" if may_revoke and (count := _count_oauth2_tokens(token)):
            names["count"] = str(count)
            text = _(
                "Gateways have refused this token since its revocation at %(time)s, but %(name)s has usable OAuth2 "
                "tokens (%(count)s). A client can get a new token: revoke all live tokens and OAuth2 tokens of the "
                "user."
            )
        case "revoked":
            text = _(
                "Gateways have refused this token since its revocation at %(time)s. Check below whether %(name)s has "
                "got other tokens since then."
            )
        case _:
            text = _(
                "Gateways have refused this token since its expiry at %(time)s. Check below whether %(name)s has "
                "other live tokens."
            )
    return text % names


def _count_oauth2_tokens(token: IssuedToken) -> int:
    """Return the number of usable OAuth2 tokens of the user who requested the token."""
    owners = users.with_uuids([token.real_user_uuid or token.user_uuid])
    return sum(each.total for each in audit.summarize_oauth2_tokens(owners))


def _count_refusals(token: IssuedToken) -> list[tuple[str, int]]:
    """Return the reason codes of refused requests from the user and the actor, with counts, the most frequent first.

    Refusals are stored as one count per hour. The result includes the hours from the hour before the issue of the
    token until its expiry. If there are more than `MOST_REFUSALS` stored counts, the latest counts are left out.
    """
    uuids = {each for each in (token.user_uuid, token.real_user_uuid) if each and each.isascii()}
    since = token.issued_at.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    rows = audit.refusal_rows().filter(hour__gte=since, hour__lt=token.expires_at, user_uuid__in=uuids)
    counts: Counter[str] = Counter()
    for reason, count in rows.order_by("hour").values_list("reason", "count")[:MOST_REFUSALS]:
        counts[reason] += count
    return counts.most_common()


def _describe_events(token: IssuedToken) -> Iterator[Event]:
    values = {
        "user": _user_name(token),
        "actor": _actor_name(token),
        "client": token.client_id or "-",
        "address": token.ip_address or "-",
    }
    if token.real_user_uuid:
        text = _("Issued to the actor %(actor)s as %(user)s, application %(client)s, from %(address)s")
    else:
        text = _("Issued to %(user)s, application %(client)s, from %(address)s")
    yield _event(token.issued_at, text % values)
    if token.revoked_at is not None:
        text = _("Revoked by %(by)s. Reason: %(reason)s")
        yield _event(
            token.revoked_at, text % {"by": token.revoked_by or "-", "reason": token.revocation_reason or "-"}
        )
    if token.revoked_at is None or token.revoked_at > token.expires_at:
        has_expired = token.expires_at <= timezone.now()
        yield _event(token.expires_at, _("Expired") if has_expired else _("Expires"))


def _event(time: datetime, text: str) -> Event:
    return Event(format_utc(time), text)
