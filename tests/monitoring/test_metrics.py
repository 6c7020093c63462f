"""Tests of the metrics of each role at `/internal/metrics`, in the text format of Prometheus."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from jwcrypto.jwk import JWK

from instaccess import audit, web
from instaccess.conf import conf
from instaccess.exceptions import Reason
from instaccess.issuer import issuing
from instaccess.models import Checkpoint, Key
from instaccess.monitoring import prometheus, sources
from tests.conftest import epoch
from tests.monitoring.helpers import ALL, GATEWAY, ISSUER, SERVICE
from tests.monitoring.metrics import METRICS, Growth, scrape
from tests.support.paths import ROOT
from tests.support.stored_keys import insert_with_sql

# Commit the rows, because a separate thread reads the database and can't read the uncommitted rows of a test.
pytestmark = pytest.mark.django_db(transaction=True)

VERIFY, SELF = "/internal/gateway/verify", "/api/v1/users/self"
ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu")
STAGES = {"issue": ["lookup", "throttle", "crypto", "audit"], "decision": ["lookup", "crypto"]}


def ask(token: str, url: str = VERIFY) -> Any:
    return Client().get(url, headers={"Authorization": f"Bearer {token}"})


def issue(user: Any, **changes: Any) -> str:
    return issuing.issue(user=user, origin=ORIGIN, now=time.time(), **changes)[1]


class TestTheProtocol:
    def test_response_of_the_metrics_endpoint_forbids_caching(self, client):
        assert client.get(METRICS)["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
    def test_metrics_endpoint_answers_405_to_methods_other_than_get_and_head(self, client, method):
        response = getattr(client, method)(METRICS)

        assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")

    def test_metrics_endpoint_answers_200_to_a_head_request(self, client):
        assert client.head(METRICS).status_code == 200

    def test_scrape_writes_no_log_line(self, client, initial_keys, caplog):
        caplog.set_level(logging.DEBUG)

        assert client.get(METRICS).status_code == 200

        assert [record for record in caplog.records if record.name.startswith(("instaccess", "django.req"))] == []

    @pytest.mark.services
    def test_promtool_finds_no_problem_in_the_metrics_of_a_process(self, initial_keys, user):
        ask(issue(user))
        call_command("instaccess_tokens", "seal")
        result = subprocess.run(
            ["promtool", "check", "metrics"],
            input=scrape().text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


class TestTheIssuer:
    def test_metrics_count_an_issued_token_with_the_duration_of_each_stage(self, post, access_token, initial_keys):
        grown = Growth()

        assert post(access_token).status_code == 201

        assert grown("instaccess_tokens_issued_total") == 1
        assert grown("instaccess_issue_duration_seconds_count") == 1
        for stage in STAGES["issue"]:
            assert grown("instaccess_issue_stage_duration_seconds_count", stage=stage) == 1
            assert grown("instaccess_issue_stage_duration_seconds_sum", stage=stage) > 0

    def test_metrics_count_a_refusal_of_the_issuer_with_its_reason(self, post, initial_keys):
        grown = Growth()

        assert post("unknown").status_code == 401

        assert grown("instaccess_refusals_total", role="issuer", reason="unknown_token") == 1
        assert grown("instaccess_tokens_issued_total") == 0

    def test_metrics_count_a_missing_key_of_the_issuer_as_a_refusal(self, post, access_token):
        grown = Growth()

        assert post(access_token).status_code == 503

        assert grown("instaccess_refusals_total", role="issuer", reason="no_key") == 1


class TestTheGateway:
    def test_metrics_count_decisions_of_the_gateway_with_the_duration_of_each_stage(self, initial_keys, user):
        token, grown = issue(user), Growth()

        assert [ask(token).status_code, ask(token).status_code, ask("a.b.c.d.e").status_code] == [204, 204, 401]

        assert grown("instaccess_gateway_decisions_total", decision="accepted") == 2
        assert grown("instaccess_gateway_decisions_total", decision="refused") == 1
        assert grown("instaccess_decision_duration_seconds_count") == 3
        # The second decision uses the cached token, and the third bearer token can't be parsed, so only the first
        # decision decrypts a token.
        assert grown("instaccess_decision_stage_duration_seconds_count", stage="crypto") == 1
        assert grown("instaccess_decision_stage_duration_seconds_count", stage="lookup") == 3

    def test_metrics_count_one_decision_of_a_gateway_without_keys(self):
        grown = Growth()

        assert ask("e30.e30.e30.e30.e30").status_code in (401, 503)

        counted = [grown("instaccess_gateway_decisions_total", decision=each) for each in ("refused", "unavailable")]
        assert sum(counted) == 1

    def test_metrics_count_a_refusal_of_the_gateway_with_its_reason(self, initial_keys):
        grown = Growth()

        ask("opaque")

        assert grown("instaccess_refusals_total", role="gateway", reason="other_bearer") == 1

    def test_metrics_contain_the_age_and_the_entries_of_the_deny_list(self, initial_keys, user):
        issue(user)
        audit.revoke(audit.revocable_tokens(), keks=conf.key_encryption_keys, reason="lost")

        scraped = scrape()

        assert scraped("instaccess_deny_list_age_seconds") >= 0
        assert scraped("instaccess_deny_list_entries", kind="token") == 1
        assert scraped("instaccess_deny_list_entries", kind="user") == 0
        assert scraped("instaccess_scrape_success", source="deny_list") == 1


class TestTheService:
    def test_metrics_count_a_refusal_of_the_service_with_its_reason(self, initial_keys, user):
        signed, grown = issue(user, encrypted=False), Growth()

        assert ask(signed, SELF).status_code == 200
        assert ask(issue(user), SELF).status_code == 401

        assert grown("instaccess_refusals_total", role="service", reason="still_encrypted") == 1


class TestTheDatabase:
    def test_metrics_contain_the_number_of_keys_and_the_time_of_the_next_rotation(self, initial_keys):
        scraped = scrape()

        assert scraped("instaccess_keys", use="sig", status="current") == 1
        assert scraped("instaccess_keys", use="sig", status="future") == 1
        for use in Key.Use:
            current = Key.objects.get(use=use, status=Key.Status.CURRENT)
            activated = scraped("instaccess_key_activated_timestamp_seconds", use=use)
            assert activated == pytest.approx(current.activated_at.timestamp())
            due = scraped("instaccess_next_rotation_timestamp_seconds", use=use)
            assert due - activated == conf.key_rotation_days * 86_400

    def test_metrics_contain_a_past_time_for_an_overdue_rotation(self, initial_keys):
        due = timezone.now() - timedelta(days=3)
        activated = due - timedelta(days=conf.key_rotation_days)
        Key.objects.update(created_at=activated)
        Key.objects.filter(status=Key.Status.CURRENT).update(activated_at=activated)

        for use in Key.Use:
            measured = scrape()("instaccess_next_rotation_timestamp_seconds", use=use)
            assert measured == pytest.approx(due.timestamp())

    def test_metrics_count_audit_rows_that_no_checkpoint_covers(self, initial_keys, row):
        old, recent = row(age=audit.SETTLED + 60), row(age=10)
        before = scrape()
        call_command("instaccess_tokens", "seal")
        after = scrape()

        assert before("instaccess_audit_unsealed_rows") == 2
        assert before("instaccess_audit_oldest_unsealed_timestamp_seconds") == epoch(old.issued_at)
        assert after("instaccess_audit_unsealed_rows") == 1
        assert after("instaccess_audit_oldest_unsealed_timestamp_seconds") == epoch(recent.issued_at)

    def test_metrics_contain_no_time_of_the_oldest_uncovered_row_if_the_audit_log_is_empty(self, initial_keys):
        scraped = scrape()

        assert scraped("instaccess_audit_unsealed_rows") == 0
        assert scraped("instaccess_audit_oldest_unsealed_timestamp_seconds") is None

    def test_metrics_count_uncovered_audit_rows_only_up_to_a_limit(self, initial_keys, row, monkeypatch):
        monkeypatch.setattr("instaccess.audit.measurements.MAX_COUNTED", 2)
        for _ in range(4):
            row()

        assert scrape()("instaccess_audit_unsealed_rows") == 2

    def test_metrics_contain_the_other_measurements_if_a_checkpoint_was_modified(self, initial_keys, row):
        row(age=audit.SETTLED + 60)
        call_command("instaccess_tokens", "seal")
        Checkpoint.objects.update(jws="broken")

        scraped = scrape()

        assert scraped("instaccess_scrape_success", source="database") == 0
        assert scraped("instaccess_keys", use="enc", status="current") == 1
        assert scraped("instaccess_maintenance_succeeded", command="seal") == 1
        assert scraped("instaccess_audit_unsealed_rows") is None

    def test_metrics_omit_a_current_key_that_an_attacker_stored_with_an_unknown_use(self, initial_keys):
        forged = JWK(kty="RSA", n="AQAB", e="AQAB")
        insert_with_sql(forged, use="x", status="current", activated_at=timezone.now(), public_jwk={})

        scraped = scrape()

        assert scraped("instaccess_scrape_success", source="database") == 1
        assert scraped("instaccess_key_activated_timestamp_seconds", use="enc") is not None
        assert scraped("instaccess_keys", use="x", status="current") is None
        assert scraped("instaccess_key_activated_timestamp_seconds", use="x") is None

    def test_metrics_report_a_failed_scrape_of_the_database_if_a_table_is_missing(self, initial_keys):
        with connection.schema_editor() as editor:
            editor.alter_db_table(Key, "instaccess_key", "instaccess_key_away")
        try:
            scraped = scrape()
        finally:
            with connection.schema_editor() as editor:
                editor.alter_db_table(Key, "instaccess_key_away", "instaccess_key")

        assert scraped("instaccess_scrape_success", source="database") == 0
        assert scraped("instaccess_tokens_issued_total") is not None


class TestASourceThatStalls:
    @pytest.mark.usefixtures("answer_soon")
    def test_o20_scrape_is_answered_without_the_measurements_of_a_stalling_source(
        self, monkeypatch, stall, initial_keys
    ):
        for name, source in sources._sources.items():
            stalling = sources.Background(name, stall)
            monkeypatch.setitem(sources._sources, name, source._replace(read=stalling))

        scraped = scrape()

        assert scraped("instaccess_scrape_success", source="database") == 0
        assert scraped("instaccess_scrape_success", source="deny_list") == 0
        assert scraped("instaccess_keys", use="sig", status="current") is None
        assert scraped("instaccess_tokens_issued_total") is not None


class TestRoles:
    @pytest.mark.parametrize(
        ("urls", "read"),
        [(ALL, {"deny_list", "database"}), (ISSUER, {"database"}), (GATEWAY, {"deny_list"}), (SERVICE, set())],
    )
    def test_scrape_reads_only_the_sources_of_the_included_roles(self, including, initial_keys, urls, read):
        including(urls)

        labels = scrape().labels("instaccess_scrape_success")

        assert labels == {frozenset({("source", name)}) for name in read}


class TestLabels:
    def test_labels_of_metrics_have_only_known_values(self, initial_keys, user, post, access_token):
        post(access_token)
        post("x" * 5000)
        ask(issue(user))
        for token in ("a.b.c.d.e", "opaque", "a b", ""):
            ask(token)
        call_command("instaccess_tokens", "seal")

        known = {
            "role": {"issuer", "gateway", "service"},
            "reason": set(map(str, Reason)),
            "decision": {"accepted", "refused", "unavailable"},
            "stage": {stage for stages in STAGES.values() for stage in stages},
            "use": set(Key.Use.values),
            "status": set(Key.Status.values),
            "kind": {"token", "user", "account", "key"},
            "command": {"seal", "verify", "prune", "rotate"},
            "source": {"database", "deny_list"},
        }
        for _, labels in scrape().samples:
            for name, value in labels:
                assert name == "le" or value in known[name]

    def test_metrics_count_an_unknown_reason_code_as_other(self):
        grown = Growth()

        web.metrics.refused("issuer", "a code of a hook")

        assert grown("instaccess_refusals_total", role="issuer", reason="other") == 1


class TestAFullDisk:
    def test_request_succeeds_if_its_metrics_cannot_be_written(self, monkeypatch, post, access_token, initial_keys):
        """Let every measurement fail, to simulate a full disk in multi-process mode, which writes to files."""

        def fail(*args: Any) -> None:
            raise OSError(28, "No space left on device")

        for metric in ("Counter.inc", "Histogram.observe"):
            monkeypatch.setattr(f"prometheus_client.{metric}", fail)

        assert post(access_token).status_code == 201
        assert post("unknown").status_code == 401
        assert ask(post(access_token).json()["token"]).status_code == 204


class TestMultiProcessMode:
    def test_metrics_endpoint_answers_503_with_the_variable_to_set_if_the_folder_is_missing(
        self, client, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))

        response = client.get(METRICS)

        assert response.status_code == 503
        assert "PROMETHEUS_MULTIPROC_DIR" in response.json()["status"]


class TestWithoutTheExtra:
    SCRIPT = """
import sys
sys.modules["prometheus_client"] = None  # makes importing the package fail
import django
django.setup()
from django.test import Client
from instaccess import web
web.metrics.issued(web.metrics.clock())
web.metrics.decided(204, web.metrics.clock())
web.metrics.stage("issuer", "audit", web.metrics.clock())
web.metrics.refused("issuer", "expired")
response = Client().get("/internal/metrics")
print(response.status_code, response.json()["status"])
print(Client().get("/internal/health/live").status_code)
"""

    def test_metrics_endpoint_without_prometheus_client_names_the_extra_to_install(self):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", self.SCRIPT],
            env={"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "testproject.settings"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert done.stdout == "404 install django-instaccess[metrics] to get metrics\n200\n"
        assert done.stderr == ""

    def test_no_metrics_are_recorded_after_the_recording_was_stopped(self, post, access_token, initial_keys):
        grown = Growth()
        web.metrics.stop()
        try:
            assert post(access_token).status_code == 201
        finally:
            web.metrics.use(prometheus.recorder)

        assert grown("instaccess_tokens_issued_total") == 0


class TestMetricsOfTheProject:
    def test_metrics_endpoint_omits_metrics_of_other_packages(self):
        assert {name.partition("_")[0] for name in scrape().names} == {"instaccess"}
