"""A function that reads the revocations of an issuer in another deployment, page by page, from a URL."""

from __future__ import annotations

from typing import Any

from ..conf import conf
from ..exceptions import ConfigError, SourceUnavailable
from .fetch import fetch_json, without_query
from .revoked import NO_TOKENS, Page

MAX_BYTES = 16 * 1024 * 1024
"""The size limit, in bytes, of one page of the revocations.

An issuer sends pages of less than a megabyte. The limit is large enough for a page with 400,000 tokens.
"""

NO_SERVICE_CREDENTIALS = (
    "INSTACCESS['DENY_LIST'] is a URL, but INSTACCESS['SERVICE_SECRETS'] contains no secret to send to the URL"
)


def read(position: str = "", etag: str = "") -> Page | None:
    """Return a page of the revocations after a position, or None if the issuer answers 304 (no new revocations).

    See docs/wire-contract.md §5.

    Args:
        position: the `cursor` of the page that was read before. If empty, the first page of all revocations is
            returned.
        etag: the ETag of the last response, or an empty string.

    Raises:
        SourceUnavailable: the issuer is unavailable, refuses the secret, or sends a document that is not a revocation
            list.
        ConfigError: SERVICE_SECRETS contains no secret.
    """
    secrets = conf.service_secrets
    if not secrets:
        raise ConfigError(NO_SERVICE_CREDENTIALS, setting="SERVICE_SECRETS")
    fetched = fetch_json(
        conf.deny_list, parameters={"since": position}, etag=etag, secret=secrets[0], max_bytes=MAX_BYTES
    )
    if fetched.not_modified:
        return None
    page = _parse(fetched.document, fetched.etag)
    if page is None:
        raise SourceUnavailable(f"{without_query(conf.deny_list)} sent a document that is not a deny list")
    return page


def _parse(document: Any, etag: str) -> Page | None:
    """Return the page that a document contains, or None if the document is not a revocation list."""
    if not isinstance(document, dict) or "revoked" not in document:
        return None
    tokens, keys = document["revoked"], document.get("revoked_keys", [])
    users, accounts = document.get("revoked_users", {}), document.get("revoked_accounts", {})
    all_until = document.get("revoked_until", NO_TOKENS)
    cursor, more = document.get("cursor", ""), document.get("more", False)
    position_lost = document.get("position_lost", False)
    valid = (
        all(_is_list_of_strings(value) for value in (tokens, keys))
        and all(_maps_to_seconds(value) for value in (users, accounts))
        and type(all_until) is int
        and isinstance(cursor, str)
        and isinstance(more, bool)
        and isinstance(position_lost, bool)
        # If there are more pages, a cursor is required. Without a cursor, the first page would be read repeatedly.
        and not (more and not cursor)
    )
    if not valid:
        return None
    return Page(tokens, users, accounts, keys, all_until, cursor, more, etag, position_lost)


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _maps_to_seconds(value: Any) -> bool:
    return isinstance(value, dict) and all(type(seconds) is int for seconds in value.values())
