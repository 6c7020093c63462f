"""Tests that compare docs/monitoring.md and examples/health with the code, and check the syntax of the examples."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from django.urls import resolve

from instaccess.monitoring import background, probes, readiness
from tests.monitoring.helpers import probe
from tests.support import readme
from tests.support.paths import ROOT

TEXT = readme.page("monitoring.md")
EXAMPLES = ROOT / "examples" / "health"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix != ".md")
ROLES = ("issuer", "gateway", "service")


class TestTheHealthPage:
    @pytest.mark.django_db(transaction=True)
    def test_documented_response_has_the_checks_and_the_fields_of_a_real_response(self):
        [snippet] = [snippet for snippet in readme.snippets(TEXT) if snippet.language == "json"]
        documented = json.loads(snippet.code)

        _, body = probe()

        assert documented.keys() == body.keys()
        assert documented["roles"].keys() == body["roles"].keys()
        assert documented["checks"].keys() == body["checks"].keys()

    def test_table_of_health_checks_lists_each_check_with_its_roles(self):
        table = readme.tables(readme.section("Health", TEXT))[1]
        documented = {readme.code(name)[0]: set(roles.split(", ")) for name, roles, _ in table}

        assert documented == {check.name: set(check.roles) for check in probes._checks.values()}

    def test_paths_on_the_page_of_monitoring_exist(self):
        for path in re.findall(r"/internal/health/[a-z]+", TEXT):
            assert resolve(path).url_name.startswith("instaccess-")

    def test_times_on_the_page_of_monitoring_are_the_times_in_the_code(self):
        assert f"after at most {background.ANSWER_SECONDS} seconds" in TEXT
        assert f"older than {readiness.LATE_SECONDS} seconds" in TEXT

    def test_modules_with_urls_on_the_page_of_monitoring_exist(self):
        for module in re.findall(r"`(instaccess\.[a-z_.]*urls[a-z_]*)`", TEXT):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists()


class TestTheExamplesOfProbes:
    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
    def test_urls_in_a_health_example_are_endpoints_of_a_role(self, path):
        for text in re.findall(r"/internal/\S+", path.read_text()):
            parts = urlsplit(text.rstrip("'"))
            assert resolve(parts.path).url_name.startswith("instaccess-")
            assert set(parse_qs(parts.query).get("role", [])) <= set(ROLES)

    def test_health_examples_use_both_health_endpoints(self):
        text = "".join(path.read_text() for path in FILES)

        assert {"/internal/health/live", "/internal/health/ready"} == set(
            re.findall(r"/internal/health/[a-z]+", text)
        )

    def test_kubernetes_example_waits_longer_than_a_response_takes_and_sends_host_and_scheme(self):
        [deployment] = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        probes_ = {name: container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}

        for each in probes_.values():
            assert each["timeoutSeconds"] > background.ANSWER_SECONDS
            headers = {header["name"]: header["value"] for header in each["httpGet"]["httpHeaders"]}
            assert headers.keys() == {"Host", "X-Forwarded-Proto"}
            assert each["httpGet"]["port"] in {port["name"] for port in container["ports"]}
        assert {name: urlsplit(each["httpGet"]["path"]).path for name, each in probes_.items()} == {
            "startupProbe": "/internal/health/ready",
            "readinessProbe": "/internal/health/ready",
            "livenessProbe": "/internal/health/live",
        }

    def test_haproxy_example_waits_longer_than_a_response_takes(self):
        [seconds] = re.findall(r"timeout check ([0-9]+)s", (EXAMPLES / "haproxy.cfg").read_text())

        assert int(seconds) > background.ANSWER_SECONDS

    @pytest.mark.services
    def test_systemd_accepts_the_units_of_the_health_examples(self, tmp_path):
        for path in FILES:
            if path.suffix in {".service", ".timer"}:
                # Replace the path of gunicorn, because systemd refuses a unit whose program does not exist.
                text = path.read_text().replace("/srv/instaccess/.venv/bin/gunicorn", sys.executable)
                (tmp_path / path.name).write_text(text)

        units = sorted(tmp_path.iterdir())
        done = subprocess.run(
            ["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=120, check=False
        )

        assert len(units) == 3
        assert (done.returncode, done.stderr) == (0, "")
