"""Tests of failures of the gateway behind each proxy, with one gateway and with two gateways."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.proxies.helpers import SELF, UNAVAILABLE
from tests.support import servers
from tests.support.proxies import PROXIES, Proxy, ScriptedGateway, Site

pytestmark = pytest.mark.services


class TestAFaultyGateway:
    """Tests that a proxy lets no request succeed while the gateway is faulty (case G14)."""

    def assert_unavailable(self, proxy: Proxy, site: Site) -> None:
        answer = proxy.call("POST", SELF, proxy.token(), body=b"x" * 1000)

        assert (answer.status, answer.body) == (503, UNAVAILABLE)
        assert answer.headers["Retry-After"] == "10"
        assert answer.headers["Content-Type"].startswith("application/json")
        assert site.service.requests == []

    def test_g14_proxy_returns_503_if_the_gateway_stalls(self, proxy, site):
        proxy.call("GET", SELF, proxy.token())
        site.service.clear()
        site.gateway_process.suspend()
        try:
            self.assert_unavailable(proxy, site)
            self.assert_unavailable(proxy, site)
        finally:
            site.gateway_process.resume()

        assert proxy.call("GET", SELF, proxy.token()).status == 200

    def test_g14_proxy_returns_503_if_the_gateway_was_killed(self, proxy, site):
        site.gateway_process.kill()
        try:
            self.assert_unavailable(proxy, site)
        finally:
            site.restart_gateway()

        assert proxy.call("GET", SELF, proxy.token()).status == 200

    def test_g14_proxy_returns_503_if_the_gateway_resets_the_connection(self, proxy, site):
        # Kill the gateway, to close all kept-alive connections. The wire tap resets only new connections.
        site.gateway_process.kill()
        site.gateway.resets = True
        try:
            self.assert_unavailable(proxy, site)
        finally:
            site.gateway.resets = False
            site.restart_gateway()

        assert proxy.call("GET", SELF, proxy.token()).status == 200

    @pytest.mark.parametrize("status", [200, 201, 202, 206, 302, 400, 403, 404, 417, 429, 500, 502, 503])
    def test_g14_proxy_refuses_a_request_if_the_gateway_sends_an_unexpected_status(self, proxy, site, status):
        script = f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nContent-Type: text/html\r\nConnection: close\r\n\r\nhi"
        with ScriptedGateway(site, script):
            answer = proxy.call("GET", SELF, proxy.token())

        if 200 <= status < 300 and proxy.name == "nginx":
            # After every 2xx, nginx forwards the request without an Authorization header, so the service answers 401.
            assert answer.status == 401
            assert site.service.headers("Authorization") == []
        else:
            assert (answer.status, answer.body) == (503, UNAVAILABLE)
            assert site.service.requests == []


class TestTheAuthorizationHeaderOfTheGateway:
    def test_g17_proxy_forwards_an_authorization_header_of_4_kib_from_the_gateway_to_the_service(self, proxy, site):
        longest = "Bearer " + "x" * 3900
        script = f"HTTP/1.1 204 No Content\r\nAuthorization: {longest}\r\nConnection: close\r\n\r\n"
        with ScriptedGateway(site, script):
            proxy.call("GET", SELF, proxy.token())

        assert set(site.service.headers("Authorization")) == {longest}

    def test_proxy_forwards_no_authorization_header_if_the_204_of_the_gateway_has_none(self, proxy, site):
        with ScriptedGateway(site, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"):
            answer = proxy.call("GET", SELF, proxy.token())

        assert answer.status in (401, 503)
        assert site.service.headers("Authorization") == []


@dataclass
class Pair:
    """A proxy in front of two gateways."""

    proxy: Proxy
    first: servers.Process
    second: servers.Process

    def ask(self, times: int) -> list[int]:
        """Send requests in parallel, because each gateway must get some requests. Returns the statuses."""
        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(lambda _: self.proxy.call("GET", SELF, self.proxy.token()).status, range(times)))

    def wait_for(self, *gateways: servers.Process) -> None:
        """Wait until the given gateways respond to direct requests."""
        for gateway in gateways:
            Proxy("none", gateway.port, self.proxy.site).call("GET", "/internal/gateway/verify")


class TestAProxyInFrontOfTwoGateways:
    """Tests of a proxy in front of two gateways (case G30).

    The gateways run on one kind of application server, because the kind makes no difference to a proxy.
    """

    @pytest.fixture(params=PROXIES)
    def pair(self, request: pytest.FixtureRequest, the_site: Site) -> Iterator[Pair]:
        gateways = [the_site.start_server(f"{name}-of-two") for name in ("first", "second")]
        port = servers.free_port()
        process = PROXIES[request.param](the_site, port, gateways=[gateway.port for gateway in gateways])
        pair = Pair(Proxy(request.param, port, the_site), *gateways)
        pair.proxy.token()
        yield pair
        for each in (process, *gateways):
            each.kill()

    def test_g30_proxy_recovers_from_the_stall_of_one_gateway_when_the_stall_ends(self, pair):
        pair.first.suspend()
        try:
            during = pair.ask(4)
        finally:
            pair.first.resume()
        pair.wait_for(pair.first)

        assert 200 in during
        assert set(during) <= {200, 503}
        assert pair.ask(4) == [200] * 4

    def test_g30_proxy_recovers_from_the_stall_of_both_gateways_when_the_stall_ends(self, pair):
        for gateway in (pair.first, pair.second):
            gateway.suspend()
        try:
            during = pair.ask(4)
        finally:
            for gateway in (pair.first, pair.second):
                gateway.resume()
        pair.wait_for(pair.first, pair.second)

        assert during == [503] * 4
        assert pair.ask(4) == [200] * 4

    def test_g30_proxy_uses_the_other_gateway_after_one_gateway_was_killed(self, pair):
        pair.first.kill()

        assert pair.ask(4) == [200] * 4
        assert [pair.proxy.call("GET", SELF, pair.proxy.token()).status for _ in range(4)] == [200] * 4
