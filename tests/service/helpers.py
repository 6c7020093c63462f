"""Functions that send requests to a protected view, and that build keys and Authorization headers for requests."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from instaccess.issuer import issuing
from instaccess.service import AcceptedClaims, InstAccessAuthentication, TokenUser
from instaccess.trust import material
from tests.support import servers
from tests.support.answers import INVALID
from tests.support.tokens import ISSUER, TokenFactory, claims

USER, ADMIN = "2d5d6f1a-0e5b-4a0f-8b5e-3f6f3b0c7a11", "9d1c7a40-90a5-4c7a-8f43-6d6f0f3a2b10"


class AcceptAnyHeader(BaseAuthentication):
    """A second authenticator, which accepts every Authorization header."""

    def authenticate(self, request: Any) -> Any:
        return (
            (TokenUser(AcceptedClaims(**OTHER_CLAIMS)), "another") if request.META.get("HTTP_AUTHORIZATION") else None
        )


OTHER_CLAIMS: dict[str, Any] = {
    "issuer": ISSUER,
    "jti": "j",
    "issued_at": 1,
    "expires_at": 2,
    "user_uuid": "anybody",
    "account_uuid": "a",
    "canvas_domain": "canvas.example.edu",
}


def ask(authorization: str | None, *authenticators: type[BaseAuthentication], **headers: str) -> Any:
    """Send a request to a protected view and return the response.

    The attribute `seen` of the response is the request that the view received, or None.
    """
    seen: list[Any] = []

    class View(APIView):
        authentication_classes = list(authenticators or [InstAccessAuthentication])
        permission_classes = [IsAuthenticated]

        def get(self, request: Any) -> Response:
            seen.append(request)
            return Response({"user": str(request.user)})

    if authorization is not None:
        headers["HTTP_AUTHORIZATION"] = authorization
    response: Any = View.as_view()(APIRequestFactory().get("/", **headers))
    response.render()
    response.seen = seen[0] if seen else None
    return response


def refusal(response: Any) -> tuple[int, bytes, str | None]:
    assert response["Content-Type"].partition(";")[0] == "application/json"
    return response.status_code, response.content, response.get("WWW-Authenticate")


class SlowFetch:
    """A fetch of the JWKS that ends after a call of `let_go`. `begun` waits until the fetch has begun.

    If the fetch blocked the event loop, nothing could call `let_go`, and the fetch would exceed its time limit.
    """

    def __init__(self, server: servers.ScriptedServer, *keys: Any) -> None:
        self._fetching, self._released = threading.Event(), threading.Event()
        self.let_go = self._released.set
        self._keys = keys
        server.answer = self._answer

    async def begun(self) -> None:
        while not self._fetching.is_set():
            await asyncio.sleep(0)

    def _answer(self, handler: Any) -> None:
        self._fetching.set()
        self._released.wait(60)
        servers.reply(handler, 200, jwks(*self._keys))


def is_left_to_next(authorization: str) -> bool:
    """Return whether InstAccessAuthentication left the request to the next authenticator."""
    response = ask(authorization, InstAccessAuthentication, AcceptAnyHeader)
    if response.status_code == 200:
        return bool(response.seen.auth == "another")
    assert refusal(response) == INVALID
    return False


def now() -> int:
    return int(time.time())


def public(token_factory: TokenFactory) -> str:
    return material.to_text(token_factory.signing, file_format="pem")


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": [material.public_members(key, use="sig") for key in keys]}).encode()


def good(token_factory: TokenFactory, **changes: Any) -> str:
    return "Bearer " + token_factory.signed(claims(now(), **changes))


def invalid(token_factory: TokenFactory, valid: str, *, acct: str) -> list[str]:
    """Return Authorization headers that a service with the ACCOUNT_UUID `acct` refuses.

    The first token is of another account, the second is expired, the third is `valid` with a wrong signature, and
    the fourth is encrypted.
    """
    return [
        good(token_factory),
        good(token_factory, acct=acct, iat=now() - 60, exp=now()),
        valid[:-8] + "AAAAAAAA",
        "Bearer " + token_factory.token(iat=now(), exp=now() + 60),
    ]


def issued(user: Any, **arguments: Any) -> str:
    """Return an Authorization header with an issued, signed token, as a gateway forwards it."""
    origin = issuing.Origin(canvas_domain="canvas.example.edu")
    return "Bearer " + issuing.issue(user=user, origin=origin, now=time.time(), encrypted=False, **arguments)[1]
