"""An issuer, a gateway and a service behind nginx, for the tests of the client."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from instaccess.client import InstAccess
from tests.client.helpers import Clock, source
from tests.support import servers
from tests.support.demos import SetUp
from tests.support.proxies import Proxy, Site, start_nginx

SELF = "/api/v1/users/self"


class Campus:
    """An nginx with the example configuration, and the issuer, the gateway and the service of the proxy tests."""

    def __init__(self, folder: Path, set_up: SetUp) -> None:
        self.site = Site(folder, set_up)
        self._nginx = start_nginx(self.site, servers.free_port())
        self.url = f"http://{servers.HOST}:{self._nginx.port}"
        self.proxy = Proxy("nginx", self._nginx.port, self.site)

    def source(self, clock: Clock | None = None, **options: Any) -> InstAccess:
        """Return a client with an access token that no other test uses."""
        return source(self.url, clock, access_token=self.site.access_tokens["ada"].pop(), **options)

    @property
    def audit_rows(self) -> int:
        with closing(sqlite3.connect(self.site.folder / "demo.sqlite3")) as connection:
            [(count,)] = connection.execute("SELECT COUNT(*) FROM instaccess_issuedtoken").fetchall()
        return int(count)

    def revoke_signing_key(self) -> None:
        """Revoke the current signing key, and wait until the issuer and the gateway use the next key."""
        refused = self.proxy.issue("boole")
        keys = json.loads(self.site.manage("instaccess_keys", "list", "--json"))
        [kid] = [key["kid"] for key in keys if key["use"] == "sig" and key["status"] == "current"]
        self.site.manage("instaccess_keys", "revoke", "--kid", kid, "--reason", "laptop stolen")
        servers.wait_until(lambda: self._use(refused), lambda status: status == 401)
        servers.wait_until(lambda: self._use(self.proxy.issue("boole")), lambda status: status == 200)

    def _use(self, token: str) -> int:
        return self.proxy.call("GET", SELF, token).status

    def close(self) -> None:
        self._nginx.kill()
        self.site.close()
