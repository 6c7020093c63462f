"""The admin pages of keys, which show public keys and their lifecycles but no private keys."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import display_for_value
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from ... import keys, trust
from ...exceptions import ConfigError, KeyAltered
from ...models import Key
from ..common import label_cell, time_element
from ..dashboard.page import DashboardPage
from .actions import KeyActions, can_be_revoked
from .overview import panel


@admin.register(Key)
class KeyAdmin(DashboardPage, KeyActions):
    list_display = ["kid", "use", "status", "private_key_cell", "activated_cell", "retired_cell"]
    list_filter = ["use", "status"]
    show_facets = admin.ShowFacets.NEVER
    change_list_template = "admin/instaccess/key/change_list.html"
    change_form_template = "admin/instaccess/key/change_form.html"
    # List the fields one by one. Without a list, the page would also show every field that is added to the model
    # later, even a secret field.
    fields = [
        "kid",
        "use",
        "alg",
        "status",
        "private_key_stored",
        "created",
        "activated",
        "retired",
        "revoked",
        "public_pem",
        "public_jwk_text",
    ]

    class Media:
        css = {"all": ["instaccess/admin.css", "instaccess/lists.css", "instaccess/timeline.css"]}
        js = ["instaccess/copy.js"]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        context = {"title": _("Keys"), **panel(now=keys.current_time()), **(extra_context or {})}
        return super().changelist_view(request, self._may_manage(request, context))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        context = self._may_manage(request, extra_context)
        key = self.get_object(request, object_id) if self.has_view_permission(request) else None
        if key is not None:
            context |= {"problem": _describe_problem(key), "can_be_revoked": can_be_revoked(key)}
        return super().change_view(request, object_id, form_url, context)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Key]:
        # Exclude rows that can't be read, because one such row would make the whole page fail. The overview reports
        # these rows.
        return super().get_queryset(request).exclude(pk__in=keys.unreadable_rows())

    @admin.display(description=gettext_lazy("private key"), boolean=True)
    def private_key_stored(self, key: Key) -> bool:
        return key.has_private

    @admin.display(description=gettext_lazy("created"), ordering="created_at")
    def created(self, key: Key) -> str:
        return time_element(key.created_at)

    @admin.display(description=gettext_lazy("activated"), ordering="activated_at")
    def activated(self, key: Key) -> str:
        return time_element(key.activated_at)

    @admin.display(description=gettext_lazy("retired"), ordering="retired_at")
    def retired(self, key: Key) -> str:
        return time_element(key.retired_at)

    # On a phone, a row is displayed as a card without column headings. The following methods therefore add the
    # heading to the cell.
    @admin.display(description=gettext_lazy("private key"))
    def private_key_cell(self, key: Key) -> str:
        return label_cell(_("private key"), display_for_value(key.has_private, "-", boolean=True))

    @admin.display(description=gettext_lazy("activated"), ordering="activated_at")
    def activated_cell(self, key: Key) -> str:
        return label_cell(_("activated"), self.activated(key))

    @admin.display(description=gettext_lazy("retired"), ordering="retired_at")
    def retired_cell(self, key: Key) -> str:
        return label_cell(_("retired"), self.retired(key))

    @admin.display(description=pgettext_lazy("time", "revoked"), ordering="revoked_at")
    def revoked(self, key: Key) -> str:
        return time_element(key.revoked_at)

    @admin.display(description=gettext_lazy("public key (PEM)"))
    def public_pem(self, key: Key) -> SafeString:
        try:
            pem = trust.key_to_text(JWK(**key.public_jwk), file_format="pem")
        except (JWException, TypeError, ValueError, LookupError):
            return _render_unusable()
        return _render_copyable(pem, "public-pem", _("public key (PEM)"))

    @admin.display(description=gettext_lazy("public key (JWK)"))
    def public_jwk_text(self, key: Key) -> SafeString:
        # Show only the members of a public RSA key (RFC 7518 §6.3.1), because a modified row could also contain
        # members of a private key.
        if not isinstance(key.public_jwk, dict):
            return _render_unusable()
        members = {name: key.public_jwk[name] for name in ("kty", "use", "kid", "n", "e") if name in key.public_jwk}
        return _render_copyable(json.dumps(members, indent=2), "public-jwk", _("public key (JWK)"))


def _describe_problem(key: Key) -> str:
    """Explain why a key is not used. Returns an empty string if the row of the key is authentic."""
    match keys.problem(key):
        case None:
            return ""
        case KeyAltered():
            return _(
                "This row was modified or inserted without this app, so the key is not used. Find out who modified "
                "the database. To see how to fix the row, run: python manage.py check --database default"
            )
        case ConfigError(detail=detail):
            return _("A setting is invalid, so the row can't be checked: %(reason)s.") % {"reason": detail}
        case _:
            return _(
                "The key is not used, because the key-encryption key of this row is not configured. Add the missing "
                "key-encryption key at the end of INSTACCESS['KEY_ENCRYPTION_KEYS']. If the missing key was derived "
                'from SECRET_KEY, add the text "SECRET_KEY" there instead. If SECRET_KEY was replaced, also add the '
                "old SECRET_KEY to SECRET_KEY_FALLBACKS."
            )


def _render_copyable(text: str, name: str, label: Any) -> SafeString:
    # `copy.js` adds a copy button and reads the texts of the button from these attributes.
    return format_html(
        '<pre class="instaccess-key" id="{}" tabindex="0" role="region" aria-label="{}"'
        ' data-copy="{}" data-copied="{}" data-selected="{}">{}</pre>',
        name,
        label,
        _("Copy"),
        _("Copied."),
        _("Selected. Copy the text with your keyboard."),
        text,
    )


def _render_unusable() -> SafeString:
    return format_html('<p class="errornote">{}</p>', _("This row was modified and doesn't contain a usable key."))
