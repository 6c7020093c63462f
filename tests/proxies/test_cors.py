"""Tests of CORS preflight requests behind each proxy, with the switch of each example off and on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proxies.helpers import (
    CLOSE,
    HOST,
    HTTP_2_UPGRADE,
    INVALID,
    PROTECTED_HEADERS,
    SELF,
    WEBSOCKET,
    authorization,
)
from tests.support import servers
from tests.support.proxies import ISSUE, PROXIES, Proxy, Site, substitute

pytestmark = pytest.mark.services

PREFLIGHT = (
    "Origin: https://app.example.edu",
    "Access-Control-Request-Method: GET",
    "Access-Control-Request-Headers: authorization",
)

# These changes from docs/proxies.md turn on preflight requests in each example.
SWITCHES = {
    "nginx": {"change": lambda text: substitute(text, '# "OPTIONS " yes;', '"OPTIONS " yes;')},
    "caddy": {"CORS_PREFLIGHTS": "on"},
    "envoy": {"change": lambda text: substitute(text, "numerator: 0}", "numerator: 100}")},
}


@pytest.fixture(scope="module", params=PROXIES)
def _switched_on(request: pytest.FixtureRequest, the_site: Site) -> Iterator[Proxy]:
    port = servers.free_port()
    process = PROXIES[request.param](the_site, port, **SWITCHES[request.param])
    yield Proxy(request.param, port, the_site)
    process.kill()


@pytest.fixture
def open_proxy(_switched_on: Proxy, site: Site) -> Proxy:
    """Return the proxy with preflight requests turned on."""
    _switched_on.token()
    site.clear()
    return _switched_on


class TestPreflightRequestsByDefault:
    def test_g25_proxy_refuses_a_preflight_request_by_default(self, proxy, site):
        answer = proxy.raw(f"OPTIONS {SELF} HTTP/1.1", HOST, *PREFLIGHT, CLOSE)

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.service.requests == []

    def test_g25_proxy_forwards_a_preflight_request_for_the_issuing_endpoint_to_the_issuer(self, proxy, site):
        proxy.raw(f"OPTIONS {ISSUE} HTTP/1.1", HOST, *PREFLIGHT, CLOSE)

        assert site.issuer.requests == [f"OPTIONS {ISSUE} HTTP/1.1"]
        assert site.issuer.headers("Origin") == ["https://app.example.edu"]


class TestPreflightRequestsWithTheSwitchOn:
    def test_g25_proxy_forwards_a_preflight_request_without_authorization_if_the_switch_is_on(self, open_proxy, site):
        answer = open_proxy.raw(f"OPTIONS {SELF}?q=1 HTTP/1.1", HOST, *PREFLIGHT, CLOSE)

        # The 401 is the response of the service, because Django REST framework also authenticates OPTIONS requests.
        assert (answer.status, answer.json["status"]) == (401, "unauthenticated")
        assert site.service.requests == [f"OPTIONS {SELF}?q=1 HTTP/1.1"]
        assert site.service.headers("Authorization") == site.gateway.requests == []
        assert site.service.headers("Origin") == ["https://app.example.edu"]

    def test_g25_proxy_asks_the_gateway_about_an_options_request_with_a_token_if_the_switch_is_on(
        self, open_proxy, site
    ):
        good = open_proxy.raw(f"OPTIONS {SELF} HTTP/1.1", HOST, authorization(open_proxy.token()), *PREFLIGHT, CLOSE)
        site.service.clear()
        bad = open_proxy.raw(f"OPTIONS {SELF} HTTP/1.1", HOST, authorization("a.b.c.d.e"), *PREFLIGHT, CLOSE)

        assert good.status == 200
        assert (bad.status, bad.body) == (401, INVALID)
        assert site.service.requests == []

    @pytest.mark.parametrize(
        "headers",
        [
            ("Connection: authorization, close",),
            ("authorization_: Bearer forged", CLOSE),
            ("X_Authorization: Bearer forged", CLOSE),
        ],
    )
    def test_g25_proxy_forwards_no_credentials_that_the_gateway_did_not_check_if_the_switch_is_on(
        self, open_proxy, site, headers
    ):
        open_proxy.raw(f"OPTIONS {SELF} HTTP/1.1", HOST, authorization(open_proxy.token()), *headers)
        open_proxy.raw(f"OPTIONS {SELF} HTTP/1.1", HOST, *headers)

        assert open_proxy.token().encode() not in site.service.sent
        assert b"forged" not in site.service.sent

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "options", "TRACE"])
    def test_g25_proxy_with_the_switch_on_refuses_a_request_without_credentials_unless_the_method_is_options(
        self, open_proxy, site, method
    ):
        answer = open_proxy.raw(f"{method} {SELF} HTTP/1.1", HOST, *PREFLIGHT, CLOSE)

        assert answer.status in (400, 401, 405)
        assert site.service.requests == []

    @pytest.mark.parametrize(
        "path", ["/internal/services/jwks", "/api/v1/..%2f..%2finternal/services/jwks", "/admin/"]
    )
    def test_g25_proxy_returns_404_for_a_path_that_is_not_public_even_if_the_switch_is_on(
        self, open_proxy, site, path
    ):
        answer = open_proxy.raw(f"OPTIONS {path} HTTP/1.1", HOST, *PREFLIGHT, CLOSE)

        assert answer.status == 404
        assert site.service.requests == site.issuer.requests == []

    @pytest.mark.parametrize("headers", [HTTP_2_UPGRADE, WEBSOCKET])
    def test_g23_g25_proxy_opens_no_tunnel_for_a_preflight_request(self, open_proxy, site, headers):
        answer = open_proxy.raw(f"OPTIONS {SELF} HTTP/1.1", HOST, "Content-Length: 0", *PREFLIGHT, *headers)

        assert answer.status in (400, 401)
        assert site.service.headers("Upgrade") == site.service.headers("HTTP2-Settings") == []

    def test_g25_g27_proxy_forwards_no_forged_headers_of_a_preflight_request(self, open_proxy, site):
        open_proxy.raw(f"OPTIONS {SELF} HTTP/1.1", HOST, *(f"{name}: forged" for name in PROTECTED_HEADERS), CLOSE)

        assert len(site.service.requests) == 1
        assert b"forged" not in site.service.sent
