"""Authentication for the library `requests`."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

import requests
from requests.auth import AuthBase
from requests.exceptions import UnrewindableBodyError
from requests.utils import rewind_body

from ..opaque import OpaqueText
from .bearer import add_token, contains_token
from .origins import Origin
from .token_source import InstAccess


class RequestsAuth(AuthBase):
    """Adds the token to requests, and repeats a request once with a new token after a 401.

    A request is repeated only if its body can be sent again. The token is sent only to `base_url` and the addresses
    in `origins`. If the server redirects to another host, `requests` removes the token.

    Args:
        access: the source of the tokens.
    """

    def __init__(self, access: InstAccess) -> None:
        self._access = access

    def __repr__(self) -> str:
        return f"<RequestsAuth for {self._access.base_url}>"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        self._access.check_origin(Origin.of_url(request.url or ""))
        token = self._access.get()
        add_token(request.headers, token)
        request.hooks["response"].append(partial(self._repeat_after_401, token))
        return request

    def _repeat_after_401(self, token: OpaqueText, response: requests.Response, **options: Any) -> requests.Response:
        request = response.request
        if response.status_code != HTTPStatus.UNAUTHORIZED or not contains_token(request.headers, token):
            return response
        if not self._access.refuse(token) or not _rewind(request):
            return response
        # Read the body, so that the connection can be used again, also if the renewal fails.
        _ = response.content
        response.close()
        new_token = self._access.get()
        # Change the request itself, because `requests` copies its headers if the server then redirects.
        add_token(request.headers, new_token)
        repeated: requests.Response = response.connection.send(request, **options)
        repeated.history.append(response)
        repeated.request = request
        if repeated.status_code == HTTPStatus.UNAUTHORIZED:
            self._access.refuse_new()
        return repeated


def _rewind(request: requests.PreparedRequest) -> bool:
    """Prepare the body of a request for sending again. Returns False if this is impossible."""
    # The type stubs of `requests` don't know that a body can also be a file or a generator.
    body: Any = request.body
    if body is None or isinstance(body, (bytes, str)):
        return True
    try:
        rewind_body(request)
    except (UnrewindableBodyError, AttributeError, ValueError):
        return False
    return True
