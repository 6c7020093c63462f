"""Tests that the documented settings pass the system checks that docs/outages.md names."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.outages.conftest import PAGE, documented_cache, documented_database, environment_of
from tests.support import readme
from tests.support.clusters import Cluster, clusters
from tests.support.paths import ROOT

pytestmark = [pytest.mark.postgresql, pytest.mark.services]

COMMANDS = [line for snippet in readme.snippets(PAGE) if snippet.language == "sh" for line in snippet.lines]
IDS = {"instaccess.W035", "instaccess.W036", "instaccess.E062"}


@pytest.fixture
def cluster(template: Path) -> Iterator[Cluster]:
    with clusters("server", template=template) as [cluster]:
        yield cluster


def reported(cluster: Cluster, command: str, database: Any, cache: Any) -> set[str]:
    """Run a documented command. Returns the ids of the messages about outages."""
    words = shlex.split(command)
    assert words[:2] == ["python", "manage.py"]
    env = {
        **os.environ,
        **environment_of(cluster),
        "DJANGO_SETTINGS_MODULE": "tests.support.outage_settings",
        "DATABASE": json.dumps(database),
        "CACHE": json.dumps(cache),
    }
    done = subprocess.run([sys.executable, *words[1:]], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    return IDS.intersection(re.findall(r"instaccess\.[EW]\d{3}", done.stderr))


class TestTheDocumentedSettings:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_o18_check_with_the_documented_settings_reports_no_missing_timeout(self, cluster, command):
        assert reported(cluster, command, documented_database(), documented_cache()) == set()

    @pytest.mark.parametrize("command", COMMANDS)
    def test_o18_check_without_the_documented_timeouts_reports_the_missing_timeouts(self, cluster, command):
        options = {"socket_timeout": None, "socket_connect_timeout": None}
        cache = documented_cache() | {"OPTIONS": options}

        assert reported(cluster, command, {}, cache) == {"instaccess.W035", "instaccess.W036"}
