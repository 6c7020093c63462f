"""The measured endpoints, and a check for each endpoint that it does its work."""

# ruff: noqa: PLC0415  (Django is set up after the database is created)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from .load import Request
from .stage import Stage

PATIENCE = 30


@dataclass(frozen=True)
class Endpoint:
    """One row of a table.

    Attributes:
        name: the name in `--only`.
        title: the title in the tables.
        beside: the name of the endpoint that this endpoint is compared with; its own name for a baseline.
        request: the request to send.
        check: raises AssertionError for a wrong response.
        wrong: an Authorization value that must be refused with 401; empty for endpoints without authentication.
    """

    name: str
    title: str
    beside: str
    request: Request
    check: Callable[[requests.Response], None]
    wrong: str = "Bearer wrong"

    def prove(self) -> None:
        """Send a valid and an invalid request once, and check the responses. Raises AssertionError."""
        with requests.Session() as session:
            session.trust_env = False
            answer = self._ask(session, self.request.authorizations[0])
            self.check(answer)
            if self.wrong:
                refused = self._ask(session, self.wrong).status_code
                assert refused == 401, f"{self.name}: {refused} for {self.wrong!r}"

    def _ask(self, session: requests.Session, authorization: str) -> requests.Response:
        headers = {"Authorization": authorization}
        if self.request.body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        request = self.request
        return session.request(request.method, request.url, headers=headers, data=request.body, timeout=PATIENCE)


def endpoints(url: str, stage: Stage) -> list[Endpoint]:
    """Return all endpoints of the server at `url`."""
    bearers = tuple(f"Bearer {text}" for text in stage.bearers)
    encrypted, signed = _tokens()

    def post(path: str, authorizations: tuple[str, ...] = bearers, body: str = "") -> Request:
        return Request("POST", url + path, authorizations, body)

    def get(path: str, authorizations: tuple[str, ...]) -> Request:
        return Request("GET", url + path, authorizations)

    broken = signed[0][:-8] + "AAAAAAAA"
    return [
        Endpoint("nothing", "do-nothing view behind DOT", "nothing", post("/peers/nothing"), _nothing),
        Endpoint("ours", "instaccess", "nothing", post("/api/v1/inst_access_tokens"), _ours),
        Endpoint("naive", "naive: jwcrypto, objects.create", "nothing", post("/peers/naive"), _issued),
        Endpoint(
            "dot",
            "DOT's /o/token/, client credentials",
            "nothing",
            post("/o/token/", (stage.basic,), "grant_type=client_credentials"),
            _dot,
            "Basic d3Jvbmc6d3Jvbmc=",
        ),
        Endpoint("simplejwt", "simplejwt token behind DOT", "nothing", post("/peers/simplejwt"), _simplejwt),
        Endpoint("knox", "knox token behind DOT", "nothing", post("/peers/knox"), _knox),
        Endpoint("floor", "lower bound: no DRF, no ORM, bare OpenSSL", "nothing", post("/peers/floor"), _issued),
        Endpoint(
            "guarded-floor",
            "lower bound, with rate limit, HMAC and log",
            "nothing",
            post("/peers/guarded-floor"),
            _guarded,
        ),
        Endpoint("204", "plain Django view, 204", "204", get("/peers/204", encrypted), _no_content, ""),
        Endpoint("gateway", "gateway, cached token", "204", get("/internal/gateway/verify", encrypted), _verified),
        Endpoint(
            "bare-service",
            "bare RS256 and a do-nothing DRF view",
            "bare-service",
            get("/peers/bare-service", signed),
            _service,
            broken,
        ),
        Endpoint(
            "service", "service authentication", "bare-service", get("/peers/service", signed), _service, broken
        ),
    ]


def _tokens(count: int = 20) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Authorization values with encrypted tokens, and with what is inside."""
    import time

    from django.contrib.auth import get_user_model

    from instaccess.issuer import issuing
    from instaccess.keys import ring as keys_ring
    from instaccess.tokens import jose

    origin = issuing.Origin(canvas_domain="canvas.example.edu", ip_address="192.0.2.7", user_agent="benchmark")
    encrypted = [
        issuing.issue(user=user, origin=origin, now=time.time())[1]
        for user in get_user_model().objects.select_related("instaccess_identity")[:count]
    ]
    keys = keys_ring.current_ring().decryption_keys()
    signed = [jose.decrypt(text, keys)[0] for text in encrypted]
    return tuple(f"Bearer {text}" for text in encrypted), tuple(f"Bearer {text}" for text in signed)


def _nothing(answer: requests.Response) -> None:
    assert (answer.status_code, answer.json()) == (201, {"ok": True}), answer.text


def _issued(answer: requests.Response) -> Any:
    """A token that our own gateway would open, and its row in the audit."""
    from instaccess.keys import ring as keys_ring
    from instaccess.models import IssuedToken
    from instaccess.tokens import jose

    assert answer.status_code == 201, answer.text
    ring = keys_ring.current_ring()
    inner, encryption_kid = jose.decrypt(answer.json()["token"], ring.decryption_keys())
    claims, signing_kid = jose.verify(inner, ring.verification_keys())
    row = IssuedToken.objects.get(jti=claims["jti"])
    assert (row.user_uuid, row.signing_kid, row.encryption_kid) == (claims["sub"], signing_kid, encryption_kid)
    assert row.user is not None
    assert row.application is not None
    return row


def _guarded(answer: requests.Response) -> None:
    from instaccess.audit import row_hmac
    from instaccess.conf import conf

    verdict = row_hmac.row_status(_issued(answer), conf.key_encryption_keys)
    assert verdict is row_hmac.HmacStatus.AUTHENTIC, verdict


def _ours(answer: requests.Response) -> None:
    from instaccess.conf import conf

    _guarded(answer)
    # The remaining units are below the limit, so the throttle charged this request on Redis.
    assert float(answer.headers["X-Rate-Limit-Remaining"]) < (conf.throttle_limit or 0)


def _dot(answer: requests.Response) -> None:
    from oauth2_provider.models import get_access_token_model

    assert answer.status_code == 200, answer.text
    assert get_access_token_model().objects.filter(token=answer.json()["access_token"]).exists()


def _simplejwt(answer: requests.Response) -> None:
    from rest_framework_simplejwt.tokens import AccessToken

    assert answer.status_code == 201, answer.text
    assert AccessToken(answer.json()["token"])["user_id"]


def _knox(answer: requests.Response) -> None:
    from knox.auth import TokenAuthentication

    assert answer.status_code == 201, answer.text
    user, _ = TokenAuthentication().authenticate_credentials(answer.json()["token"].encode())
    assert user.is_active


def _no_content(answer: requests.Response) -> None:
    assert (answer.status_code, answer.content) == (204, b"")


def _verified(answer: requests.Response) -> None:
    from instaccess.keys import ring as keys_ring
    from instaccess.tokens import jose

    _no_content(answer)
    jose.verify(answer.headers["Authorization"].removeprefix("Bearer "), keys_ring.current_ring().verification_keys())


def _service(answer: requests.Response) -> None:
    from instaccess.models import UserIdentity

    assert answer.status_code == 200, answer.text
    assert UserIdentity.objects.filter(uuid=answer.json()["user"]).exists()
