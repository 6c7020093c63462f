"""Authentication for the library `requests`."""

from __future__ import annotations

from functools import partial
from typing import Any

import requests
from requests.auth import AuthBase
from requests.exceptions import UnrewindableBodyError
from requests.utils import rewind_body

from ..opaque import OpaqueText
from .bearer import TokenAuth, add_token
from .origins import Origin


class RequestsAuth(TokenAuth, AuthBase):
    """The `TokenAuth` for `requests`."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        self._access.check_origin(Origin.of_url(request.url or ""))
        token = self._access.get()
        add_token(request.headers, token)
        request.hooks["response"].append(partial(self._repeat_after_401, token))
        return request

    def _repeat_after_401(self, token: OpaqueText, response: requests.Response, **options: Any) -> requests.Response:
        request = response.request
        if not self._may_renew(response.status_code, request.headers, token) or not _rewind(request):
            return response
        # Read the body, so that the connection can be used again, even if the renewal fails.
        _ = response.content
        response.close()
        new_token = self._access.get()
        # Change the original request and not a copy, because `requests` copies its headers if the server then
        # redirects.
        add_token(request.headers, new_token)
        repeated: requests.Response = response.connection.send(request, **options)
        repeated.history.append(response)
        repeated.request = request
        self._note_repeated(repeated.status_code)
        return repeated


def _rewind(request: requests.PreparedRequest) -> bool:
    """Prepare the body of a request for sending again. Returns False if this is impossible."""
    # Use `Any`, because the body can also be a file or a generator, which the type stubs of `requests` leave out.
    body: Any = request.body
    if body is None or isinstance(body, (bytes, str)):
        return True
    try:
        rewind_body(request)
    except (UnrewindableBodyError, AttributeError, ValueError):
        return False
    return True
