"""Tests of the files for Traefik without Traefik, because no package registry of this project contains Traefik."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.proxies.helpers import PROTECTED_HEADERS
from tests.support.paths import ROOT

SET_BY_TRAEFIK = {"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}
FOLDER = ROOT / "examples/traefik"
STATIC: Any = yaml.safe_load((FOLDER / "traefik.yml").read_text())
TEXT = (FOLDER / "dynamic.yml").read_text()
# Uncomment the router for preflight requests, because the example contains this router only as a comment.
SWITCHED_ON = re.sub(r"(?m)^    # (cors-preflight:|  )", r"    \1", TEXT)
HTTP: Any = yaml.safe_load(SWITCHED_ON)["http"]
DEFAULT: Any = yaml.safe_load(TEXT)["http"]
PUBLIC = {name: router for name, router in HTTP["routers"].items() if router["entryPoints"] == ["public"]}


def removed(name: str) -> set[str]:
    """Return the request headers that a middleware removes."""
    headers = HTTP["middlewares"][name]["headers"]["customRequestHeaders"]
    assert set(headers.values()) == {""}
    return set(headers)


def matches(router: str, path: str) -> bool:
    """Return whether a path meets every condition for paths in the rule of a router."""
    rule = HTTP["routers"][router]["rule"]
    results = []
    for negated, kind, value in re.findall(r"(!?)(PathRegexp|PathPrefix|Path)\(`([^`]+)`\)", rule):
        found = {
            "Path": path == value,
            "PathPrefix": path.startswith(value),
            "PathRegexp": re.search(value, path) is not None,
        }[kind]
        results.append(found is not (negated == "!"))
    return all(results)


class TestRequestHeadersBehindTraefik:
    @pytest.mark.parametrize("name", PROTECTED_HEADERS)
    @pytest.mark.parametrize("separator", "-_.")
    def test_g27_traefik_removes_a_protected_header_in_each_spelling(self, name, separator):
        spelling = name.replace("-", separator)

        assert spelling in removed("strip-identity") or (name in SET_BY_TRAEFIK and separator == "-")

    def test_g27_traefik_sets_the_origin_headers_and_removes_header_names_with_underscores(self):
        for entry_point in STATIC["entryPoints"].values():
            assert entry_point["forwardedHeaders"] == {"insecure": False, "trustedIPs": []}
        assert STATIC["entryPoints"]["public"]["http"]["underscoreHeadersStrategy"] == "delete"

    @pytest.mark.parametrize("router", PUBLIC)
    def test_g13_g27_every_public_router_of_traefik_first_removes_the_protected_headers(self, router):
        assert PUBLIC[router]["middlewares"][0] == "strip-identity"


class TestUpgradesBehindTraefik:
    @pytest.mark.parametrize("router", PUBLIC)
    def test_g23_g24_traefik_keeps_the_upgrade_header_only_for_a_websocket_handshake_with_a_token(self, router):
        middlewares = PUBLIC[router]["middlewares"]

        assert {"Upgrade", "HTTP2-Settings"} <= removed("strip-upgrade")
        if router == "websocket":
            assert "Method(`GET`) && HeaderRegexp(`Upgrade`, `(?i)^websocket$`)" in PUBLIC[router]["rule"]
            assert "instaccess" in middlewares
        else:
            assert "strip-upgrade" in middlewares


class TestTheGatewayBehindTraefik:
    def test_g14_only_requests_to_the_issuer_and_preflight_requests_bypass_the_gateway_behind_traefik(self):
        unprotected = {name for name, router in PUBLIC.items() if "instaccess" not in router["middlewares"]}

        assert unprotected == {"issuer", "cors-preflight"}
        assert PUBLIC["issuer"]["service"] == "issuer"
        assert {router["service"] for router in PUBLIC.values()} == {"issuer", "service"}

    def test_g15_traefik_sends_the_gateway_one_header_and_no_body(self):
        forward_auth = HTTP["middlewares"]["instaccess"]["forwardAuth"]

        assert forward_auth["authRequestHeaders"] == forward_auth["authResponseHeaders"] == ["Authorization"]
        assert forward_auth["forwardBody"] is forward_auth["trustForwardHeader"] is False

    def test_g26_traefik_does_not_send_the_path_of_the_client_to_the_gateway(self):
        """Check the entry point, because an entry point that trusts no client removes X-Forwarded-Uri."""
        address = STATIC["entryPoints"]["gateway"]["address"]
        path = HTTP["middlewares"]["instaccess"]["forwardAuth"]["address"].removeprefix(f"http://{address}")

        assert path == "/internal/gateway/verify"
        assert HTTP["routers"]["gateway"]["rule"] == f"Path(`{path}`)"
        assert HTTP["routers"]["gateway"]["entryPoints"] == ["gateway"]
        assert HTTP["services"]["gateway"]["loadBalancer"]["passHostHeader"] is False

    def test_g14_traefik_returns_503_with_a_static_body_while_the_gateway_stalls(self):
        transport = HTTP["serversTransports"][HTTP["services"]["gateway"]["loadBalancer"]["serversTransport"]]
        errors = HTTP["middlewares"]["unavailable"]["errors"]

        assert transport["forwardingTimeouts"] == {"dialTimeout": "1s", "responseHeaderTimeout": "2s"}
        assert (errors["status"], errors["statusRewrites"]) == (["500-599"], {"500-599": 503})
        assert errors["service"] == "faults"
        for router in PUBLIC.values():
            middlewares = router["middlewares"]
            if "instaccess" in middlewares:
                assert middlewares.index("unavailable") < middlewares.index("instaccess")


class TestPathsBehindTraefik:
    @pytest.mark.parametrize(
        "path", ["/api/v1/inst_access_tokens", "/api/v1/inst_access_tokens/", "/api/v1/inst_access_tokens.json"]
    )
    def test_traefik_sends_every_form_of_the_issuing_path_to_the_issuer_as_one_path(self, path):
        assert matches("issuer", path)
        assert HTTP["middlewares"]["issuing-path"] == {"replacePath": {"path": "/api/v1/inst_access_tokens"}}
        assert "issuing-path" in PUBLIC["issuer"]["middlewares"]
        assert PUBLIC["issuer"]["priority"] > max(
            router["priority"] for name, router in PUBLIC.items() if name != "issuer"
        )

    def test_g28_traefik_forwards_an_encoded_slash_to_the_service(self):
        assert STATIC["entryPoints"]["public"]["http"]["encodedCharacters"]["allowEncodedSlash"] is True
        assert matches("api", "/api/v1/courses/sis_course_id:A%2FB")

    @pytest.mark.parametrize("router", PUBLIC)
    @pytest.mark.parametrize(
        "path",
        [
            "/api/v1/..%2f..%2finternal/services/jwks",
            "/api/v1/..%2F..%2Finternal/services/jwks",
            "/api/v1/..%5c..%5cinternal",
            "/api/v1/x%2f..",
            "/internal/services/jwks",
            "/internal/health/ready",
            "/api/v1",
            "/",
        ],
    )
    def test_g28_no_public_router_of_traefik_matches_an_internal_path(self, router, path):
        assert STATIC["entryPoints"]["public"]["http"]["sanitizePath"] is True
        assert not matches(router, path)


class TestTheTraefikSwitchForPreflightRequests:
    def test_g25_router_of_traefik_for_preflight_requests_is_off_by_default(self):
        assert set(HTTP["routers"]) - set(DEFAULT["routers"]) == {"cors-preflight"}

    def test_g25_traefik_forwards_a_preflight_request_without_authorization_to_the_service(self):
        router = HTTP["routers"]["cors-preflight"]

        assert router["rule"].endswith("&& Method(`OPTIONS`) && !HeaderRegexp(`Authorization`, `.*`)")
        assert router["service"] == "service"
        assert router["middlewares"] == ["strip-identity", "strip-upgrade", "strip-authorization"]
        assert removed("strip-authorization") == {"Authorization"}
        assert PUBLIC["issuer"]["priority"] > router["priority"] > PUBLIC["websocket"]["priority"]
