"""Tests of case O18: MariaDB accepts connections but never answers an issuer with the documented timeouts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.outages.conftest import documented_mariadb
from tests.support import servers
from tests.support.issuers import issuer

pytestmark = pytest.mark.services


def environment_of(port: int) -> dict[str, str]:
    """Return the environment variables for a MariaDB server. No test needs the tables of the test project."""
    return {
        "INSTACCESS_DATABASE": "mariadb",
        "MARIADB_HOST": servers.HOST,
        "MARIADB_DATABASE": "information_schema",
        "MYSQL_TCP_PORT": str(port),
    }


@pytest.fixture
def silent_port() -> Iterator[int]:
    with socket.create_server((servers.HOST, 0), backlog=100) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def tap() -> Iterator[servers.WireTap]:
    tap = servers.WireTap(int(os.environ.get("MYSQL_TCP_PORT", "3306")))
    yield tap
    tap.close()


class TestMariaDB:
    def test_o18_issuer_answers_503_if_mariadb_never_answers_a_new_connection(self, silent_port, tmp_path: Path):
        with issuer(tmp_path, environment_of(silent_port), database=documented_mariadb()) as server:
            answers = [server.request("POST", "/api/v1/inst_access_tokens", "opaque") for _ in range(2)]

        assert [answer.status for answer in answers] == [503, 503]
        assert server.tracebacks_per_minute() <= 1

    def test_o18_issuer_answers_503_if_mariadb_stops_answering_on_an_open_connection(self, tap, tmp_path: Path):
        with issuer(tmp_path, environment_of(tap.port), database=documented_mariadb()) as server:
            tap.may_answer = lambda sent: b"oauth2_provider_accesstoken" not in sent
            assert server.request("POST", "/api/v1/inst_access_tokens", "opaque").status == 503
            assert "during query" in server.log()

            tap.may_answer = lambda sent: True
            # On a busy machine, the first probe can exceed its time limit.
            servers.wait_until(
                lambda: server.health("issuer").body["checks"]["database"], lambda check: check == {"status": "ok"}
            )
