"""Authentication for the library `httpx` (extra `httpx`), for clients with and without asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from http import HTTPStatus

import httpx

from ..opaque import OpaqueText
from .bearer import add_token, contains_token
from .origins import Origin
from .token_source import InstAccess


class HttpxAuth(httpx.Auth):
    """Adds the token to requests, and repeats a request once with a new token after a 401.

    A request is repeated only if its body can be sent again. The token is sent only to `base_url` and the addresses
    in `origins`. If the server redirects to another host, `httpx` removes the token.

    Args:
        access: the source of the tokens.
    """

    def __init__(self, access: InstAccess) -> None:
        self._access = access

    def __repr__(self) -> str:
        return f"<HttpxAuth for {self._access.base_url}>"

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        self._check(request)
        token = self._access.get()
        add_token(request.headers, token)
        response = yield request
        if self._can_repeat(response, token):
            add_token(response.request.headers, self._access.get())
            self._note((yield response.request))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        self._check(request)
        token = await self._access.async_get()
        add_token(request.headers, token)
        response = yield request
        if self._can_repeat(response, token):
            add_token(response.request.headers, await self._access.async_get())
            self._note((yield response.request))

    def _check(self, request: httpx.Request) -> None:
        self._access.check_origin(Origin.of(request.url.scheme, request.url.host, request.url.port))

    def _can_repeat(self, response: httpx.Response, token: OpaqueText) -> bool:
        """Return whether to repeat the last request of a response, which is a redirected request after a redirect."""
        request = response.request
        if response.status_code != HTTPStatus.UNAUTHORIZED or not contains_token(request.headers, token):
            return False
        return self._access.refuse(token) and isinstance(request.stream, httpx.ByteStream)

    def _note(self, response: httpx.Response) -> None:
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            self._access.refuse_new()
