"""Tests that compare docs/high-availability.md, its snippets and its examples with the code and with each other.

The tests of names also read docs/outages.md. `tests/outages/` covers the snippets of that page.
"""

from __future__ import annotations

import configparser
import re
import runpy
import shlex
import subprocess
import sys
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.urls import resolve

from instaccess.conf import SETTINGS, conf
from instaccess.trust import remote_jwks
from tests.support import readme, servers
from tests.support.paths import ROOT
from tests.support.processes import environment

TEXT = readme.page("high-availability.md")
OUTAGES = readme.page("outages.md")
SNIPPETS = readme.snippets(TEXT)
EXAMPLE, HEALTH = ROOT / "examples/high-availability", ROOT / "examples/health"
[CURL] = [line for snippet in SNIPPETS for line in snippet.lines if line.startswith("curl ")]
GUNICORN: dict[str, Any] = runpy.run_path(str(EXAMPLE / "gunicorn.conf.py"))


def unit_value(name: str) -> str:
    """Return the value of the option `name` in the systemd unit of the gateway."""
    [value] = re.findall(rf"^{name}=(.*)$", (HEALTH / "instaccess-gateway.service").read_text(), re.MULTILINE)
    return str(value)


def pod() -> dict[str, Any]:
    [deployment] = yaml.safe_load_all((HEALTH / "kubernetes.yaml").read_text())
    spec: dict[str, Any] = deployment["spec"]
    return spec


class TestTimesOnThePageOfHighAvailability:
    TIMES = {
        readme.code(row[1])[0]: int(row[2].removesuffix(" s"))
        for table in readme.tables(readme.section("Servers", TEXT))
        for row in table
        if row[-1].endswith(" s")
    }

    def test_page_of_high_availability_contains_the_times_of_the_examples(self):
        template = pod()["template"]["spec"]
        [container] = template["containers"]
        _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]

        assert {
            "preStop": int(seconds),
            "graceful_timeout": GUNICORN["graceful_timeout"],
            "TimeoutStopSec": int(unit_value("TimeoutStopSec")),
            "terminationGracePeriodSeconds": template["terminationGracePeriodSeconds"],
        } == self.TIMES

    def test_systemd_and_kubernetes_wait_longer_than_a_graceful_stop_of_gunicorn_takes(self):
        before_term, graceful, unit, container = self.TIMES.values()

        assert graceful < unit
        assert before_term + graceful < container

    def test_systemd_and_kubernetes_examples_replace_a_gateway_as_documented(self):
        assert unit_value("KillMode") == "mixed"
        assert unit_value("ExecReload") == "/bin/kill -HUP $MAINPID"
        assert pod()["strategy"]["rollingUpdate"]["maxUnavailable"] == 0

    def test_gunicorn_keeps_idle_connections_for_longer_than_nginx(self):
        # The example doesn't set `keepalive_timeout` of the upstream, so compare with nginx's default of 60 seconds.
        assert "keepalive_timeout" not in (EXAMPLE / "upstreams.conf").read_text()
        assert GUNICORN["keepalive"] > 60
        assert f"`keepalive` of gunicorn ({GUNICORN['keepalive']} s)" in TEXT


class TestNamesOnThePageOfHighAvailability:
    def test_settings_in_the_tables_of_the_page_of_high_availability_exist(self):
        [_, copies, equal, _] = readme.tables(readme.section("Nodes", TEXT))
        named = {name for row in copies for name in readme.code(row[2])}
        named |= {name for row in equal for name in readme.code(row[0])} - {"SECRET_KEY", "SECRET_KEY_FALLBACKS"}

        assert named
        assert named <= set(SETTINGS)

    def test_page_of_high_availability_contains_the_default_times_of_cached_copies(self):
        [_, copies, *_] = readme.tables(readme.section("Nodes", TEXT))
        kept = {setting: readme_seconds(text) for _, text, cell in copies for setting in readme.code(cell)}

        for name in ("KEY_CACHE_SECONDS", "DENY_LIST_SECONDS", "MAX_STALENESS", "KEEP_DECISION_SECONDS"):
            assert kept[name] == [getattr(conf, SETTINGS[name])]
        assert kept["JWKS_MAX_AGE"] == [conf.jwks_max_age, remote_jwks.JWKS_COOLDOWN]

    def test_check_ids_on_the_pages_of_high_availability_and_outages_exist(self):
        source = "".join(path.read_text() for path in (ROOT / "instaccess").glob("*/checks.py"))
        ids = set(re.findall(r"`instaccess\.([EW]\d{3})`", TEXT + OUTAGES))

        assert {"E008", "W009", "W034", "W036"} <= ids
        assert all(each in source for each in ids)

    def test_paths_on_the_pages_of_high_availability_and_outages_exist(self):
        for path in re.findall(r"/internal/[a-z/]+", TEXT + OUTAGES):
            assert resolve(path).url_name.startswith("instaccess-")


def readme_seconds(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"([0-9]+) seconds", text)]


class TestSnippetsOnThePageOfHighAvailability:
    def test_every_snippet_on_the_page_of_high_availability_is_covered_by_a_test(self):
        assert [snippet.language for snippet in SNIPPETS] == ["sh", "sh", "ini", "text"]

    def test_documented_commands_exist(self):
        for line in (line for snippet in SNIPPETS if snippet.language == "sh" for line in snippet.lines):
            match shlex.split(line):
                case ["python", "manage.py", command, *arguments]:
                    app = get_commands()[command]
                    loaded = load_command_class(app, command) if isinstance(app, str) else app
                    assert isinstance(loaded, BaseCommand)
                    loaded.create_parser("manage.py", command).parse_args(arguments)
                case ["systemctl", "restart", unit]:
                    assert (HEALTH / f"{unit}.service").exists()
                case _:
                    assert line == CURL

    @pytest.mark.services
    @pytest.mark.django_db(transaction=True)
    def test_documented_probe_waits_until_the_gateway_is_ready(self, initial_keys, tmp_path):
        port = servers.free_port()
        command = [sys.executable, "-m", "gunicorn", "testproject.wsgi", "--bind", f"{servers.HOST}:{port}"]
        command += ["--config", str(EXAMPLE / "gunicorn.conf.py")]
        # Replace the documented host, which is not in ALLOWED_HOSTS of the test project.
        probe = CURL.replace("127.0.0.1:8081", f"{servers.HOST}:{port}").replace("gateway.internal", "a.example.edu")
        gateway = servers.Process(command, port=port, log=tmp_path / "gateway.log", env=environment(), cwd=ROOT)
        try:
            done = subprocess.run(shlex.split(probe), capture_output=True, text=True, timeout=120, check=False)
        finally:
            gateway.kill()

        assert (done.returncode, done.stdout) == (0, "")

    def test_documented_probe_is_the_probe_of_the_systemd_unit(self):
        assert shlex.split(unit_value("ExecStartPost"))[1:] == shlex.split(CURL)[1:]

    def test_documented_time_services_have_several_servers(self):
        [timesyncd, chrony] = [snippet.code for snippet in SNIPPETS if snippet.language in {"ini", "text"}]
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(timesyncd)
        directives = [line.split() for line in chrony.splitlines()]

        assert parser.sections() == ["Time"]
        assert len(parser["Time"]["NTP"].split()) > 1
        assert [words[0] for words in directives] == ["server", "server", "server", "makestep"]
        assert all(words[2:] == ["iburst"] for words in directives if words[0] == "server")


class TestTheExampleOfHighAvailability:
    def test_each_upstream_of_the_nginx_example_has_two_servers(self):
        text = (EXAMPLE / "upstreams.conf").read_text()
        blocks = dict(re.findall(r"^upstream (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
        names = re.findall(r"^ +upstream (\w+) ", (ROOT / "examples/nginx/nginx.conf").read_text(), re.MULTILINE)

        assert blocks.keys() == set(names)
        assert {block.count("max_fails=0;") for block in blocks.values()} == {2}
        assert [name for name, block in blocks.items() if "keepalive" in block] == ["gateway"]

    def test_readme_of_the_example_starts_a_node_for_each_server(self):
        bound = set(re.findall(r"--bind (\S+)", (EXAMPLE / "README.md").read_text()))

        assert bound == set(re.findall(r"server (\S+) max_fails", (EXAMPLE / "upstreams.conf").read_text()))
