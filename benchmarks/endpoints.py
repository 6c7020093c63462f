"""The endpoints to measure. Before the measurement, a check ensures that each endpoint returns a correct response."""

# ruff: noqa: PLC0415  (Functions contain imports, because Django is set up after the database is created.)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from .load import Request
from .stage import Stage

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Endpoint:
    """An endpoint to measure. The report contains one table row for each endpoint.

    Attributes:
        name: the name of the endpoint, for the option `--only`.
        title: the title of the endpoint in tables.
        baseline: the name of the endpoint with which this endpoint is compared. For a baseline, the value is
            the baseline's own name.
        request: the request that the benchmark sends.
        check: a function that raises AssertionError if a response is wrong.
        invalid_authorization: an Authorization value that must be refused with 401; empty for endpoints without
            authentication.
    """

    name: str
    title: str
    baseline: str
    request: Request
    check: Callable[[requests.Response], None]
    invalid_authorization: str = "Bearer wrong"

    def check_responses(self) -> None:
        """Send a valid and an invalid request. Raises AssertionError if a response is wrong."""
        with requests.Session() as session:
            session.trust_env = False
            response = self._send(session, self.request.authorizations[0])
            self.check(response)
            if self.invalid_authorization:
                refused = self._send(session, self.invalid_authorization).status_code
                assert refused == 401, f"{self.name}: {refused} for {self.invalid_authorization!r}"

    def _send(self, session: requests.Session, authorization: str) -> requests.Response:
        headers = {"Authorization": authorization}
        if self.request.body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        request = self.request
        return session.request(
            request.method, request.url, headers=headers, data=request.body, timeout=TIMEOUT_SECONDS
        )


def endpoints(url: str, stage: Stage) -> list[Endpoint]:
    """Return all endpoints to measure on the server at `url`."""
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
    """Issue tokens. Returns one tuple of Authorization values with encrypted tokens, and one with signed tokens."""
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


def _nothing(response: requests.Response) -> None:
    assert (response.status_code, response.json()) == (201, {"ok": True}), response.text


def _issued(response: requests.Response) -> Any:
    """Check the token in a response and its audit row. Returns the audit row.

    Raises AssertionError if the token or the audit row is wrong.
    """
    from instaccess.keys import ring as keys_ring
    from instaccess.models import IssuedToken
    from instaccess.tokens import jose

    assert response.status_code == 201, response.text
    ring = keys_ring.current_ring()
    inner, encryption_kid = jose.decrypt(response.json()["token"], ring.decryption_keys())
    claims, signing_kid = jose.verify(inner, ring.verification_keys())
    row = IssuedToken.objects.get(jti=claims["jti"])
    assert (row.user_uuid, row.signing_kid, row.encryption_kid) == (claims["sub"], signing_kid, encryption_kid)
    assert row.user is not None
    assert row.application is not None
    return row


def _guarded(response: requests.Response) -> None:
    from instaccess.audit import row_hmac
    from instaccess.conf import conf

    status = row_hmac.row_status(_issued(response), conf.key_encryption_keys)
    assert status is row_hmac.HmacStatus.AUTHENTIC, status


def _ours(response: requests.Response) -> None:
    from instaccess.conf import conf

    _guarded(response)
    # A value below the limit shows that the throttle has charged this request on Redis.
    assert float(response.headers["X-Rate-Limit-Remaining"]) < (conf.throttle_limit or 0)


def _dot(response: requests.Response) -> None:
    from oauth2_provider.models import get_access_token_model

    assert response.status_code == 200, response.text
    assert get_access_token_model().objects.filter(token=response.json()["access_token"]).exists()


def _simplejwt(response: requests.Response) -> None:
    from rest_framework_simplejwt.tokens import AccessToken

    assert response.status_code == 201, response.text
    assert AccessToken(response.json()["token"])["user_id"]


def _knox(response: requests.Response) -> None:
    from knox.auth import TokenAuthentication

    assert response.status_code == 201, response.text
    user, _ = TokenAuthentication().authenticate_credentials(response.json()["token"].encode())
    assert user.is_active


def _no_content(response: requests.Response) -> None:
    assert (response.status_code, response.content) == (204, b"")


def _verified(response: requests.Response) -> None:
    from instaccess.keys import ring as keys_ring
    from instaccess.tokens import jose

    _no_content(response)
    jose.verify(
        response.headers["Authorization"].removeprefix("Bearer "), keys_ring.current_ring().verification_keys()
    )


def _service(response: requests.Response) -> None:
    from instaccess.models import UserIdentity

    assert response.status_code == 200, response.text
    assert UserIdentity.objects.filter(uuid=response.json()["user"]).exists()
