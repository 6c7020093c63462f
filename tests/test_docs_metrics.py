"""Tests that compare the metrics in docs/monitoring.md and examples/prometheus with the metrics of a process."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.urls import resolve

from instaccess import audit, web
from instaccess.audit import measurements
from instaccess.exceptions import Reason
from instaccess.management import audit_evidence
from instaccess.management.commands import instaccess_keys
from instaccess.models import MaintenanceRun
from instaccess.monitoring import background
from tests.monitoring.metrics import Scraped, scrape
from tests.support import readme, servers
from tests.support.paths import ROOT

TEXT = readme.page("monitoring.md")
SECTION = readme.section("Metrics", TEXT)
EXAMPLES = ROOT / "examples" / "prometheus"
DOCUMENTED = {readme.code(row[0])[0]: row for row in readme.tables(SECTION)[0]}
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
NAME = re.compile(r"\binstaccess_[a-z_]+")
REASONS = {str(reason) for reason in Reason}


@pytest.fixture
def scraped(transactional_db: None, initial_keys: Any, row: Any, monkeypatch: pytest.MonkeyPatch) -> Scraped:
    """Return a scrape in which each metric has a sample."""
    monkeypatch.setattr(background, "ANSWER_SECONDS", servers.PATIENCE)
    row(age=audit.SETTLED + 60)
    call_command("instaccess_keys", "rotate")
    web.metrics.refused("gateway", Reason.EXPIRED)
    return scrape()


def base_name(name: str) -> str:
    """Return the name of a metric without the suffix that a histogram adds, such as `_bucket`."""
    return re.sub(r"(?<=_duration_seconds)_(?:bucket|sum|count)$", "", name)


class TestTheTableOfMetrics:
    def test_table_of_metrics_lists_exactly_the_metrics_of_a_process(self, scraped):
        assert set(DOCUMENTED) == {base_name(name) for name in scraped.names}

    def test_table_of_metrics_lists_the_type_and_the_labels_of_each_metric(self, scraped):
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", scraped.text, re.MULTILINE))
        for name, (_, kind, labels, _) in DOCUMENTED.items():
            assert types[name] == kind
            used = {label for each, pairs in scraped.samples for label, _ in pairs if base_name(each) == name}
            assert used - {"le"} == set(readme.code(labels))

    def test_table_of_metrics_names_the_maintenance_commands_and_the_limit_of_counted_rows(self):
        row = DOCUMENTED["instaccess_maintenance_started_timestamp_seconds"]
        commands = audit_evidence.EvidenceSubcommands.recorded | instaccess_keys.Command.recorded

        assert set(readme.code(row[3])) == commands
        assert all(len(command) <= MaintenanceRun._meta.get_field("command").max_length for command in commands)
        assert f"{measurements.MAX_COUNTED:,}" in DOCUMENTED["instaccess_audit_unsealed_rows"][3]

    def test_documented_shell_commands_install_the_metrics_package_and_set_the_folder_of_the_metrics(self):
        """Check only the text. tests/monitoring/test_prometheus.py starts gunicorn with the documented variable."""
        lines = [line for snippet in readme.snippets(SECTION) for line in snippet.lines]

        assert [shlex.split(line)[0] for line in lines] == ["python", "mkdir", f"{VARIABLE}=/run/instaccess/metrics"]
        [package] = re.findall(r"pip install (\S+)", lines[0])
        extras = (ROOT / "setup.cfg").read_text().partition("metrics =\n")[2]
        assert extras.strip().startswith(package)


class TestTheExamples:
    ALERTS = yaml.safe_load((EXAMPLES / "alerts.yml").read_text())["groups"][0]["rules"]
    DASHBOARD = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

    @pytest.mark.parametrize("expression", [*QUERIES, *(alert["expr"] for alert in ALERTS)])
    def test_query_of_an_alert_or_a_panel_uses_only_documented_metrics(self, expression):
        names = {base_name(name) for name in NAME.findall(expression)}

        assert names <= set(DOCUMENTED)
        assert names or "up{" in expression

    @pytest.mark.parametrize("expression", [*QUERIES, *(alert["expr"] for alert in ALERTS)])
    def test_query_of_an_alert_or_a_panel_uses_only_existing_reasons(self, expression):
        for text in re.findall(r'reason=~?"([^"]+)"', expression):
            assert set(text.split("|")) <= REASONS

    def test_dashboard_of_the_example_shows_each_documented_metric(self):
        displayed = {base_name(name) for query in self.QUERIES for name in NAME.findall(query)}

        assert displayed == set(DOCUMENTED)

    def test_panels_of_the_dashboard_have_different_ids_and_places(self):
        panels = self.DASHBOARD["panels"]

        assert len({panel["id"] for panel in panels}) == len(panels)
        assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)

    def test_each_alert_has_a_test_that_expects_the_alert_and_a_test_that_expects_no_alert(self):
        tests = yaml.safe_load((EXAMPLES / "alerts_test.yml").read_text())["tests"]
        rules = [rule for test in tests for rule in test["alert_rule_test"]]
        names = {alert["alert"] for alert in self.ALERTS}

        assert {rule["alertname"] for rule in rules if rule.get("exp_alerts")} == names
        assert {rule["alertname"] for rule in rules if not rule.get("exp_alerts")} == names

    def test_prometheus_example_scrapes_the_metrics_endpoint(self):
        jobs = yaml.safe_load((EXAMPLES / "prometheus.yml").read_text())["scrape_configs"]

        assert {resolve(job["metrics_path"]).func.__name__ for job in jobs} == {"metrics_view"}

    @pytest.mark.services
    @pytest.mark.parametrize("arguments", ["check config prometheus.yml", "test rules alerts_test.yml"])
    def test_promtool_accepts_the_prometheus_example_and_its_alerts(self, arguments):
        done = subprocess.run(
            ["promtool", *arguments.split()],
            cwd=Path(EXAMPLES),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert "FAILED" not in done.stdout + done.stderr
