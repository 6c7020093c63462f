"""Tests of paths and queries behind each proxy, as the gateway and the service receive them."""

from __future__ import annotations

import pytest

from tests.proxies.helpers import CLOSE, HOST, INVALID, SELF, authorization
from tests.support.proxies import ISSUE

pytestmark = pytest.mark.services

TO_INTERNAL_PATHS = [
    "/api/v1/../../internal/services/jwks",
    "/api/v1/%2e%2e/%2e%2e/internal/services/jwks",
    "/api/v1/..%2f..%2finternal/services/jwks",
    "/api/v1/..%2F..%2Finternal/services/jwks",
    "/api/v1/%2e%2e%2f%2e%2e%2finternal/services/jwks",
    "/api/v1/..%5c..%5cinternal/services/jwks",
    "/api/v1/users%2f..%2f..%2f..%2finternal/services/jwks",
    "/api/v1/inst_access_tokens/../../../internal/services/jwks",
    "/api/v1/inst_access_tokens%2f..%2f..%2f..%2finternal/services/jwks",
    "//internal/services/jwks",
]


class TestPathsThatAreNotPublic:
    @pytest.mark.parametrize(
        "path",
        [
            *TO_INTERNAL_PATHS,
            "/internal/gateway/verify",
            "/internal/services/jwks",
            "/internal/services/revocations",
            "/internal/health/live",
            "/internal/health/ready",
            "/internal/metrics",
            "//internal/gateway/verify",
            "/./internal/gateway/verify",
            "/%69nternal/gateway/verify",
            "/api/v1/../../internal/gateway/verify",
            "/api/v1/%2e%2e/%2e%2e/internal/gateway/verify",
            "/_gateway",
            "/_unavailable",
            "/admin/",
            "/",
        ],
    )
    def test_proxy_returns_404_or_401_in_json_for_a_path_that_is_not_public(self, proxy, site, path):
        answer = proxy.raw(f"GET {path} HTTP/1.1", HOST, CLOSE)

        assert answer.status in (401, 404)
        assert isinstance(answer.json["errors"], list)
        assert site.service.requests == site.issuer.requests == []

    @pytest.mark.parametrize("path", TO_INTERNAL_PATHS)
    def test_g28_client_with_a_token_cannot_reach_internal_paths(self, proxy, site, path):
        answer = proxy.raw(f"GET {path} HTTP/1.1", HOST, authorization(proxy.token()), CLOSE)

        assert answer.status == 404
        assert b"keys" not in answer.body
        assert site.issuer.requests == []
        for line in site.service.requests:
            # The path must stay below /api/v1/, so that only a service that decodes the path twice could treat the
            # path as an internal path.
            assert line.split(" ")[1].startswith("/api/v1/")

    @pytest.mark.parametrize(
        "path",
        [
            "/api/v1/users/../inst_access_tokens",
            "/api/v1/users/self/../../inst_access_tokens",
            "/API/V1/USERS/SELF",
            "/api//v1/users/self",
            "/internal/../api/v1/users/self",
        ],
    )
    def test_non_canonical_path_does_not_bypass_the_gateway(self, proxy, site, path):
        opaque = site.access_tokens["ada"][0]  # Without the gateway, the service would accept this token.

        answer = proxy.raw(f"GET {path} HTTP/1.1", HOST, authorization(opaque), CLOSE)

        assert answer.status in (401, 404, 405)
        assert site.service.requests == []

    def test_proxy_returns_404_without_a_redirect_for_the_parent_path_of_the_api(self, proxy):
        answer = proxy.raw("GET /api/v1 HTTP/1.1", "Host: canvas.example.edu", CLOSE)

        assert answer.status == 404
        assert answer.headers["Location"] is None


class TestAnEncodedSlashInAPath:
    @pytest.mark.parametrize(
        "path", ["/api/v1/courses/sis_course_id:A%2FB", "/api/v1/courses/sis_course_id:a%2fb/users"]
    )
    def test_g28_proxy_forwards_an_encoded_slash_to_the_service_unchanged(self, proxy, site, path):
        answer = proxy.raw(f"GET {path} HTTP/1.1", HOST, authorization(proxy.token()), CLOSE)

        assert answer.status == 404  # The service returns 404, because it has no courses.
        assert site.service.requests == [f"GET {path} HTTP/1.1"]

    def test_g28_proxy_refuses_a_request_without_a_token_for_a_path_with_an_encoded_slash(self, proxy, site):
        answer = proxy.raw("GET /api/v1/courses/sis_course_id:A%2FB HTTP/1.1", HOST, CLOSE)

        assert (answer.status, answer.body) == (401, INVALID)
        assert site.service.requests == []


class TestTheRequestFromTheProxyToTheGateway:
    @pytest.mark.parametrize("query", ["access_token=hidden&%GG", "access_token=hidden&q=" + "x" * 13_000])
    def test_g26_gateway_receives_a_fixed_path_without_the_query_of_the_client(self, proxy, site, query):
        answer = proxy.call("GET", f"{SELF}?{query}", "a.b.c.d.e")

        assert answer.status == 401
        assert site.gateway.requests == ["GET /internal/gateway/verify HTTP/1.1"]
        assert b"hidden" not in site.gateway.sent
        assert len(site.gateway.sent) < 1024

    def test_g26_service_receives_the_whole_query_of_the_client(self, proxy, site):
        query = "q=" + "x" * 3_000

        answer = proxy.call("GET", f"{SELF}?{query}", proxy.token())

        assert answer.status == 200
        assert site.service.requests == [f"GET {SELF}?{query} HTTP/1.1"]

    def test_g26_proxy_never_returns_503_for_a_query_of_16_kb(self, proxy, site):
        answer = proxy.call("GET", f"{SELF}?q=" + "x" * 16_384, "a.b.c.d.e")

        # nginx refuses the request line, which is larger than its buffer.
        assert answer.status in (401, 414)
        assert len(site.gateway.sent) < 1024

    def test_gateway_does_not_receive_a_long_cookie_of_the_client(self, proxy, site):
        answer = proxy.call("GET", SELF, "a.b.c.d.e", Cookie="c=" + "x" * 12_000, Referer="https://a.example/hidden")

        assert answer.status == 401
        assert len(site.gateway.sent) < 1024

    def test_issuer_receives_the_query_of_a_request_to_the_issuing_endpoint(self, proxy, site):
        proxy.call("POST", f"{ISSUE}.json?as_user_id=7", "unknown")

        assert site.issuer.requests == [f"POST {ISSUE}?as_user_id=7 HTTP/1.1"]
