"""Sentences about OAuth2 tokens of users, for the page that confirms the revocation of their InstAccess tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ... import audit
from ...times import format_utc

MOST_NAMED = 20
"""The maximum number of users or applications that the confirmation page names."""


@dataclass(frozen=True)
class OAuth2Access:
    """The users of the selected tokens, divided by whether the revocation can include their OAuth2 tokens.

    Attributes:
        owners: the users who requested the selected tokens.
        others: the names of the users whom the owners masqueraded as. The OAuth2 tokens of these users are not
            revoked.
    """

    owners: Sequence[Any]
    others: Sequence[str]

    def describe(self) -> list[str]:
        """Return sentences that list the OAuth2 tokens and explain which access remains after the revocation."""
        tokens = audit.summarize_oauth2_tokens(self.owners)
        sentences = [self._describe_total(sum(each.total for each in tokens)), *map(_describe, tokens[:MOST_NAMED])]
        if (rest := len(tokens) - MOST_NAMED) > 0:
            text = ngettext(
                "There are OAuth2 tokens for %(count)d more application.",
                "There are OAuth2 tokens for %(count)d more applications.",
                rest,
            )
            sentences.append(text % {"count": rest})
        if self.others:
            text = _("The OAuth2 tokens of %(names)s stay valid, because an actor requested the selected tokens.")
            sentences.append(text % {"names": join_names(sorted(self.others))})
        if services := audit.service_applications(self.owners):
            text = _(
                "These applications can still get new OAuth2 tokens with their client secrets: %(names)s. Change the "
                "client secrets, or delete the service users."
            )
            sentences.append(text % {"names": join_names(services)})
        sentences.append(
            _(
                "Passwords and sessions stay valid. If a device was lost, also change the user's password. Changing "
                "the password ends the user's sessions."
            )
        )
        return sentences

    def _describe_total(self, total: int) -> str:
        if not total:
            names = join_names(sorted(str(owner) for owner in self.owners))
            return _("%(names)s: no usable OAuth2 tokens.") % {"names": names or _("deleted users")}
        text = ngettext(
            "If the box below is checked, %(count)d OAuth2 token is revoked too. If the OAuth2 token stays valid, "
            "clients can get new InstAccess tokens.",
            "If the box below is checked, %(count)d OAuth2 tokens are revoked too. If the OAuth2 tokens stay valid, "
            "clients can get new InstAccess tokens.",
            total,
        )
        return text % {"count": total}


def _describe(tokens: audit.OAuth2Tokens) -> str:
    """Describe the OAuth2 tokens of one user for one application."""
    numbers = ", ".join(_count(kind, tokens.counts[kind]) for kind in audit.OAUTH2_KINDS if tokens.counts[kind])
    return _("OAuth2 tokens of %(user)s for %(application)s: %(numbers)s. Last used: %(time)s.") % {
        "user": tokens.user,
        "application": tokens.application or _("no application"),
        "numbers": numbers,
        "time": format_utc(tokens.last_used) if tokens.last_used else "-",
    }


def _count(kind: str, count: int) -> str:
    texts = {
        "access_tokens": ngettext("%(count)d access token", "%(count)d access tokens", count),
        "refresh_tokens": ngettext("%(count)d refresh token", "%(count)d refresh tokens", count),
        "authorization_codes": ngettext("%(count)d authorization code", "%(count)d authorization codes", count),
        "device_codes": ngettext("%(count)d device code", "%(count)d device codes", count),
        "id_tokens": ngettext("%(count)d ID token", "%(count)d ID tokens", count),
    }
    return texts[kind] % {"count": count}


def join_names(names: Sequence[str]) -> str:
    """Join names with commas. At most `MOST_NAMED` names are listed, and further names are counted."""
    rest = len(names) - MOST_NAMED
    listed = ", ".join(names[:MOST_NAMED])
    if rest <= 0:
        return listed
    return ngettext("%(names)s and %(count)d other", "%(names)s and %(count)d others", rest) % {
        "names": listed,
        "count": rest,
    }
