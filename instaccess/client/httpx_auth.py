"""Authentication for the library `httpx` (extra `httpx`), for clients with and without asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import httpx

from ..opaque import OpaqueText
from .bearer import TokenAuth, add_token
from .origins import Origin


class HttpxAuth(TokenAuth, httpx.Auth):
    """The `TokenAuth` for `httpx`."""

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        self._check(request)
        token = self._access.get()
        add_token(request.headers, token)
        response = yield request
        if self._can_repeat(response, token):
            add_token(response.request.headers, self._access.get())
            self._note_repeated((yield response.request).status_code)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        self._check(request)
        token = await self._access.async_get()
        add_token(request.headers, token)
        response = yield request
        if self._can_repeat(response, token):
            add_token(response.request.headers, await self._access.async_get())
            self._note_repeated((yield response.request).status_code)

    def _check(self, request: httpx.Request) -> None:
        self._access.check_origin(Origin.of(request.url.scheme, request.url.host, request.url.port))

    def _can_repeat(self, response: httpx.Response, token: OpaqueText) -> bool:
        """Return whether to repeat the request that led to a response.

        If the server redirected the client, this is the request to the last address.
        """
        request = response.request
        may_renew = self._may_renew(response.status_code, request.headers, token)
        return may_renew and isinstance(request.stream, httpx.ByteStream)
