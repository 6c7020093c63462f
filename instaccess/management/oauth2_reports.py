"""The output of `instaccess_tokens revoke` about the OAuth2 tokens of a user, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError

from .. import audit, users
from .base import iso

_FILTERS = ("jti", "user", "application", "account")


def find_owners(options: dict[str, Any]) -> list[Any]:
    """Return the existing users with the user name or uuid of the option `--user`.

    Returns an empty list if `--user` is not the only filter.

    Raises CommandError if `--oauth2-tokens` is given and `--user` is not the only filter.
    """
    if [name for name in _FILTERS if options[name] is not None] != ["user"]:
        if options["oauth2_tokens"]:
            raise CommandError("--oauth2-tokens needs --user and no other filter: use only the filter --user.")
        return []
    found = [*users.named(options["user"]), *users.with_uuids([options["user"]])]
    return list({user.pk: user for user in found}.values())


def facts(tokens: Sequence[audit.OAuth2Tokens]) -> list[dict[str, Any]]:
    """Return the usable OAuth2 tokens for `--json`, with one object per user and application."""
    return [
        {
            "user": str(each.user),
            "application": each.application,
            "client_id": each.client_id,
            **{kind: each.counts[kind] for kind in audit.OAUTH2_KINDS},
            "last_used": iso(each.last_used),
        }
        for each in tokens
    ]


def lines(tokens: Sequence[audit.OAuth2Tokens]) -> list[str]:
    """Describe the usable OAuth2 tokens, with one line per user and application."""
    return [
        f"  {each.user}, {each.application or 'no application'}: {_numbers(each)}, last used {iso(each.last_used)}"
        for each in tokens
    ]


def advice(owners: Sequence[Any], tokens: Sequence[audit.OAuth2Tokens], *, revoked: bool) -> list[str]:
    """Return the lines that explain which access the user keeps, and how an operator can end this access."""
    total, result = sum(each.total for each in tokens), []
    if total and not revoked:
        result += [f"{total} OAuth2 tokens stay valid, so a client can get a new InstAccess token:", *lines(tokens)]
        result.append("To revoke the OAuth2 tokens too, run the command again with --oauth2-tokens.")
    if services := audit.service_applications(owners):
        result.append(
            f"These applications can still get new OAuth2 tokens with their client secrets: {', '.join(services)}. "
            "Change the client secrets, or delete the service users."
        )
    if total:
        result.append("Passwords and sessions stay valid. If a device was lost, also change the user's password.")
    return result


def _numbers(tokens: audit.OAuth2Tokens) -> str:
    names = [
        (kind.replace("_", " ").replace("id tokens", "ID tokens"), tokens.counts[kind]) for kind in audit.OAUTH2_KINDS
    ]
    return ", ".join(f"{count} {name if count != 1 else name.removesuffix('s')}" for name, count in names if count)
