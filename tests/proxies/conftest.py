"""Fixtures for the tests behind a proxy. A test with the fixture `proxy` runs once for each proxy and server.

The services run under Hypercorn, which supports HTTP/2 in clear text and WebSocket. Each process is started once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.demos import SetUp
from tests.support.proxies import PROXIES, Proxy, Site


@pytest.fixture(scope="session")
def the_site(set_up_once: SetUp) -> Iterator[Site]:
    # Don't use pytest's temporary directory, which only its owner can enter. If root starts nginx, the workers run as
    # another user, and couldn't open files in that directory.
    with tempfile.TemporaryDirectory(prefix="instaccess-proxies-") as name:
        Path(name).chmod(0o755)
        site = Site(Path(name), set_up_once, "hypercorn with websockets")
        yield site
        site.close()


class Fleet:
    """The proxies in front of a site, each of which is started when a test first uses the proxy."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._proxies: dict[str, Proxy] = {}
        self._processes: list[servers.Process] = []

    def get(self, name: str) -> Proxy:
        if name not in self._proxies:
            port = servers.free_port()
            self._processes.append(PROXIES[name](self._site, port))
            self._proxies[name] = Proxy(name, port, self._site)
        return self._proxies[name]

    def close(self) -> None:
        for process in self._processes:
            process.kill()


@pytest.fixture(scope="session")
def fleet(the_site: Site) -> Iterator[Fleet]:
    fleet = Fleet(the_site)
    yield fleet
    fleet.close()


# The scope is the session, because pytest then groups the tests by gateway and rarely changes the gateway.
@pytest.fixture(scope="session", params=["gunicorn", "hypercorn"])
def gateway_server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(the_site: Site, gateway_server: str) -> Site:
    the_site.use_gateway(gateway_server)
    return the_site


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, site: Site, fleet: Fleet) -> Proxy:
    proxy = fleet.get(request.param)
    proxy.token()
    site.clear()
    return proxy
