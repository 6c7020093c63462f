"""Fixtures that deploy the test project on a PostgreSQL server of the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections

from instaccess.keys import provision
from tests.support import readme, servers
from tests.support.clusters import SUPERUSER, Cluster, clusters
from tests.support.paths import ROOT

PAGE = readme.page("outages.md")


def _documented(setting: str, text: str) -> dict[str, Any]:
    """Return the entry `default` of a setting from the code block in docs/outages.md that contains `text`."""
    names: dict[str, Any] = {}
    [code] = [each.code for each in readme.snippets(PAGE) if each.language == "python" and text in each.code]
    exec(code, names)
    return dict(names[setting]["default"])


def _without_address(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("CONN_MAX_AGE", "CONN_HEALTH_CHECKS", "OPTIONS")}


def documented_database() -> dict[str, Any]:
    """Return the documented settings for PostgreSQL without the address, the name and the user of the database."""
    settings = _documented("DATABASES", "backends.postgresql")
    assert settings["HOST"] == "db1.example.edu,db2.example.edu"
    return _without_address(settings)


def documented_mariadb() -> dict[str, Any]:
    """Return the documented settings for MariaDB without the address, the name and the user of the database."""
    return _without_address(_documented("DATABASES", "backends.mysql"))


def documented_cache() -> dict[str, Any]:
    """Return the documented settings for a Redis cache."""
    return _documented("CACHES", "RedisCache")


def documented_pgbouncer() -> str:
    """Return the documented settings for PgBouncer."""
    [code] = [each.code for each in readme.snippets(PAGE) if each.language == "ini"]
    return code


def environment_of(*clusters: Cluster) -> dict[str, str]:
    """Return the environment variables with which a process connects to these PostgreSQL servers."""
    return {
        "INSTACCESS_DATABASE": "postgresql",
        "PGHOST": ",".join(servers.HOST for _ in clusters),
        "PGPORT": ",".join(str(cluster.port) for cluster in clusters),
        "PGUSER": SUPERUSER,
        "PGDATABASE": "postgres",
    }


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """Yield the data directory of a stopped PostgreSQL server with the tables of the test project."""
    with clusters("template") as [cluster]:
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity=0"],
            env={**os.environ, **environment_of(cluster)},
            cwd=ROOT,
            check=True,
        )
        cluster.stop("fast")
        yield cluster.data


@pytest.fixture
def use(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Cluster], None]]:
    """Return a function that connects this process to a PostgreSQL server until the end of the test."""
    with monkeypatch.context() as patch:

        def use_(cluster: Cluster) -> None:
            connections.close_all()
            values = {"HOST": servers.HOST, "PORT": str(cluster.port), "NAME": "postgres", "USER": SUPERUSER}
            for name, value in values.items():
                patch.setitem(connection.settings_dict, name, value)

        yield use_
        connections.close_all()


@pytest.fixture
def deploy(use: Callable[[Cluster], None], request: pytest.FixtureRequest, rsa_pool: Any) -> Callable[[Cluster], Any]:
    """Return a function that deploys the test project on a PostgreSQL server.

    The function connects this process to the server, creates the first keys, and returns an access token.
    """

    def deploy_(cluster: Cluster) -> Any:
        use(cluster)
        provision.init()
        return request.getfixturevalue("make_access_token")()

    return deploy_
