"""Keys: public halves and where each stands in its life."""

from __future__ import annotations

import json

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from ..models import Key
from .readonly import ReadOnlyAdmin


@admin.register(Key)
class KeyAdmin(ReadOnlyAdmin):
    list_display = ["kid", "use", "status", "private_half_held", "created_at", "activated_at", "retired_at"]
    list_filter = ["use", "status"]
    # Named one by one: a field added to the model later is not shown until somebody decides so here.
    fields = [
        "kid",
        "use",
        "alg",
        "status",
        "private_half_held",
        "created_at",
        "activated_at",
        "retired_at",
        "revoked_at",
        "public_pem",
        "public_jwk_text",
    ]

    @admin.display(description=_("private half held"), boolean=True)
    def private_half_held(self, key: Key) -> bool:
        return key.has_private

    @admin.display(description=_("public key (PEM)"))
    def public_pem(self, key: Key) -> SafeString:
        try:
            return _block(JWK(**key.public_jwk).export_to_pem().decode())
        except (JWException, TypeError, ValueError, LookupError):
            return _block(str(_("This row was altered: it holds no usable key.")))

    @admin.display(description=_("public key (JWK)"))
    def public_jwk_text(self, key: Key) -> SafeString:
        # Only the members a public RSA key has (RFC 7518 §6.3.1), whatever the row may hold.
        members = {name: key.public_jwk[name] for name in ("kty", "use", "kid", "n", "e") if name in key.public_jwk}
        return _block(json.dumps(members, indent=2))


def _block(text: str) -> SafeString:
    return format_html('<pre tabindex="0">{}</pre>', text)
