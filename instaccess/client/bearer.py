"""Functions for the Authorization header, and the base class of the auth classes for all HTTP libraries.

The functions keep the token out of error reports.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from http import HTTPStatus

from ..opaque import OpaqueText, concealed
from .token_source import InstAccess


@concealed
def add_token(headers: MutableMapping[str, str], token: OpaqueText) -> None:
    """Set the Authorization header to a token."""
    headers["Authorization"] = f"Bearer {token.reveal()}"


@concealed
def contains_token(headers: MutableMapping[str, str], token: OpaqueText) -> bool:
    """Return whether the Authorization header contains a token.

    Returns False after a redirect to another host, because the HTTP library then removes the header.
    """
    value = headers.get("Authorization") or ""
    return OpaqueText(value) == OpaqueText(f"Bearer {token.reveal()}")


class TokenAuth:
    """Authentication that adds the token to requests, and repeats a request once with a new token after a 401.

    A request is repeated only if its body can be sent again. The token is sent only to `base_url` and the addresses
    in `origins`. If the server redirects to another host, the HTTP library removes the token.

    Args:
        access: the source of the tokens.
    """

    def __init__(self, access: InstAccess) -> None:
        self._access = access

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self._access.base_url}>"

    def _may_renew(self, status: int, headers: MutableMapping[str, str], token: OpaqueText) -> bool:
        """Return whether to repeat a request with a new token. `headers` are the headers of the request.

        After a redirect to another host, the request has no token, so a new token would not change the response.
        """
        return status == HTTPStatus.UNAUTHORIZED and contains_token(headers, token) and self._access.refuse(token)

    def _note_repeated(self, status: int) -> None:
        """Pause renewals (see `PAUSE`) if a request that was repeated with a new token got a 401."""
        if status == HTTPStatus.UNAUTHORIZED:
            self._access.refuse_new()
