"""Tests of the health endpoints of each role, with the test database and with servers that fail or stall."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import pytest
from django.db import connection
from django.test import Client, override_settings

from instaccess import trust
from instaccess.models import IssuedToken, Key
from instaccess.monitoring import probes
from instaccess.trust import refreshed
from tests.monitoring.helpers import ALL, GATEWAY, ISSUER, LIVE, READY, SERVICE, probe, problems
from tests.support.clocks import Clock
from tests.support.servers import ScriptedServer, scripted_server, wait_until

# Commit the rows, because each check runs in a separate thread, which can't read the uncommitted rows of a test.
pytestmark = pytest.mark.django_db(transaction=True)

CHECKS = {
    ISSUER: {"issuing_keys", "database", "audit", "cache"},
    GATEWAY: {"decryption_keys", "verification_keys", "deny_list"},
    SERVICE: {"verification_keys", "database"},
}


@pytest.fixture
def issuer_url(initial_keys: Any, client: Client) -> Any:
    """Run an HTTP server that returns the JWK set of this database and an empty revocation list."""
    documents = {
        "/jwks": client.get("/internal/services/jwks").content,
        "/revocations": b'{"revoked": [], "revoked_keys": [], "revoked_users": {}, "revoked_accounts": {}}',
    }

    def answer(handler: Any) -> None:
        body = documents[handler.path.partition("?")[0]]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with scripted_server(answer) as server:
        yield server


def remote(server: ScriptedServer, **settings: Any) -> dict[str, Any]:
    """Return the settings of a gateway that reads its keys and its deny list from URLs."""
    return {
        "VERIFICATION_KEYS": f"{server.base_url}/jwks",
        "DENY_LIST": f"{server.base_url}/revocations",
        "SERVICE_SECRETS": ["s" * 43],
        "ALLOW_HTTP_URLS": True,
        **settings,
    }


class TestLive:
    def test_live_endpoint_answers_200_without_a_query(self, client, django_assert_num_queries):
        with django_assert_num_queries(0):
            response = client.get(LIVE)

        assert (response.status_code, response.json()) == (200, {"status": "live"})

    @pytest.mark.parametrize("urls", [ISSUER, GATEWAY, SERVICE])
    def test_urls_of_a_role_contain_the_live_endpoint(self, client, including, urls):
        including(urls)

        assert client.get(LIVE).status_code == 200


class TestTheProtocol:
    @pytest.mark.parametrize("path", [LIVE, READY])
    def test_responses_of_health_endpoints_forbid_caching(self, client, initial_keys, path):
        assert client.get(path)["Cache-Control"] == "no-store"
        assert client.post(path)["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("path", [LIVE, READY])
    def test_head_request_to_a_health_endpoint_gets_the_status_without_a_body(self, client, initial_keys, path):
        response = client.head(path)

        assert (response.status_code, response.content) == (200, b"")

    @pytest.mark.parametrize("path", [LIVE, READY])
    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
    def test_health_endpoints_answer_405_to_methods_other_than_get_and_head(self, client, path, method):
        response = getattr(client, method)(path)

        assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")

    @pytest.mark.parametrize("query", ["role=gatewayy", "role=", "role=%GG", "role=issuer%00"])
    def test_ready_endpoint_answers_404_and_lists_the_known_roles_if_the_role_is_unknown(self, client, query):
        response = client.get(f"{READY}?{query}")

        assert response.status_code == 404
        assert response.json() == {"status": "unknown role", "roles": ["issuer", "gateway", "service"]}


class TestAReadyProcess:
    @pytest.mark.parametrize("urls", CHECKS)
    def test_ready_endpoint_of_a_role_reports_the_checks_of_the_role(self, including, initial_keys, urls):
        including(urls)

        status, body = probe()

        assert (status, body["status"]) == (200, "ready")
        assert set(body["roles"].values()) == {"ready"}
        assert set(body["checks"]) == CHECKS[urls]
        assert problems(body) == {}

    @pytest.mark.parametrize("modules", [[ALL], [SERVICE, GATEWAY, ISSUER], [ISSUER, SERVICE, GATEWAY]])
    def test_ready_endpoint_reports_all_roles_for_any_order_of_the_included_urls(
        self, including, initial_keys, modules
    ):
        including(*modules)

        status, body = probe()

        assert status == 200
        assert body["roles"] == dict.fromkeys(("issuer", "gateway", "service"), "ready")
        assert set(body["checks"]) == set().union(*CHECKS.values())

    def test_parameter_role_of_the_ready_endpoint_selects_one_role(self, initial_keys):
        status, body = probe("service")

        assert (status, body["roles"]) == (200, {"service": "ready"})
        assert set(body["checks"]) == CHECKS[SERVICE]

    def test_ready_endpoint_of_a_gateway_reports_the_age_of_the_deny_list(self, initial_keys):
        _, body = probe("gateway")

        assert body["checks"]["deny_list"]["age_seconds"] >= 0

    def test_gateway_and_service_are_ready_if_urls_return_keys_and_the_deny_list(self, including, issuer_url):
        including(GATEWAY, SERVICE)
        with override_settings(INSTACCESS=remote(issuer_url)):
            status, body = probe()

        assert (status, problems(body)) == (200, {})
        assert {request.path for request in issuer_url.requests} == {"/jwks", "/revocations"}

    def test_ready_endpoint_does_not_check_the_cache_if_throttling_is_off(self, initial_keys):
        caches = {"default": {"BACKEND": "no.such.Backend"}}
        with override_settings(INSTACCESS={"THROTTLE_LIMIT": None}, CACHES=caches):
            assert problems(probe()[1]) == {}


class TestKeysThatCannotBeUsed:
    def test_ready_endpoint_reports_missing_keys_for_each_role_and_names_the_command_instaccess_init(self):
        status, body = probe()

        assert (status, body["status"]) == (503, "not ready")
        assert set(body["roles"].values()) == {"not ready"}
        assert problems(body) == dict.fromkeys(("issuing_keys", "decryption_keys", "verification_keys"), "error")
        for name in problems(body):
            assert "instaccess_init" in body["checks"][name]["detail"]

    def test_k8_only_the_service_is_ready_if_there_is_no_encryption_key(self, initial_keys):
        Key.objects.filter(use=Key.Use.ENCRYPTION).delete()

        status, body = probe()

        assert status == 503
        assert body["roles"] == {"issuer": "not ready", "gateway": "not ready", "service": "ready"}
        assert probe("service")[0] == 200

    def test_o6_issuer_with_a_wrong_key_encryption_key_is_not_ready(self, initial_keys):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}):
            status, body = probe("issuer")

        assert (status, problems(body)) == (503, {"issuing_keys": "error"})
        assert "KEY_ENCRYPTION_KEYS" in body["checks"]["issuing_keys"]["detail"]

    def test_ready_endpoint_names_an_invalid_setting(self, initial_keys):
        with override_settings(INSTACCESS={"DENY_LIST_SECOND": 1}):
            status, body = probe("gateway")

        assert status == 503
        assert "INSTACCESS['DENY_LIST_SECOND'] is not a setting" in body["checks"]["deny_list"]["detail"]


class TestTheAuditLog:
    def test_ready_endpoint_reports_a_missing_audit_table_and_an_available_database(self, initial_keys):
        with connection.schema_editor() as editor:
            editor.alter_db_table(IssuedToken, "instaccess_issuedtoken", "instaccess_issuedtoken_away")
        try:
            status, body = probe("issuer")
        finally:
            with connection.schema_editor() as editor:
                editor.alter_db_table(IssuedToken, "instaccess_issuedtoken_away", "instaccess_issuedtoken")

        assert (status, problems(body)) == (503, {"audit": "error"})
        assert "migrate" in body["checks"]["audit"]["detail"]

    @pytest.mark.postgresql
    def test_only_the_issuer_is_not_ready_if_the_database_is_read_only(self, initial_keys):
        name = connection.ops.quote_name(connection.settings_dict["NAME"])
        with connection.cursor() as cursor:
            # The setting applies only to new sessions, such as the session of a probe.
            cursor.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            try:
                status, body = probe()
            finally:
                cursor.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")

        assert (status, problems(body)) == (503, {"audit": "error"})
        assert "ReadOnlySqlTransaction" in body["checks"]["audit"]["detail"]
        assert body["roles"] == {"issuer": "not ready", "gateway": "ready", "service": "ready"}

    def test_probe_of_an_issuer_adds_no_row_to_the_audit_log(self, initial_keys):
        assert probe("issuer")[0] == 200
        assert IssuedToken.objects.count() == 0


class TestTheDenyList:
    def test_ready_endpoint_reports_an_error_with_the_age_of_a_deny_list_that_is_too_old(self, including, issuer_url):
        including(GATEWAY)
        with override_settings(INSTACCESS=remote(issuer_url, DENY_LIST_SECONDS=0, MAX_STALENESS=0)):
            assert probe()[0] == 200
            issuer_url.answer_with(500)
            status, body = probe()

        assert status == 503
        assert body["checks"]["deny_list"]["status"] == "error"
        assert "/revocations answered 500" in body["checks"]["deny_list"]["detail"]
        assert body["checks"]["deny_list"]["age_seconds"] >= 0

    def test_ready_endpoint_warns_about_an_old_deny_list_that_the_gateway_still_uses(
        self, including, issuer_url, monkeypatch
    ):
        including(GATEWAY)
        clock = Clock()
        monkeypatch.setattr(refreshed, "time", clock)
        with override_settings(INSTACCESS=remote(issuer_url, MAX_STALENESS=3600)):
            trust.clear_deny_list()
            assert problems(probe()[1]) == {}
            issuer_url.answer_with(500)
            clock.advance(100)
            status, body = probe()

        assert (status, problems(body)) == (200, {"deny_list": "warning"})
        assert body["checks"]["deny_list"]["age_seconds"] == pytest.approx(100, abs=1)
        assert "3602 seconds" in body["checks"]["deny_list"]["detail"]

    def test_probe_loads_the_deny_list_of_a_gateway_that_has_handled_no_request(self, initial_keys):
        assert trust.deny_list_age() is None

        probe("gateway")

        assert trust.deny_list_age() is not None


@pytest.mark.usefixtures("answer_soon")
class TestServersThatStall:
    def test_o20_ready_endpoint_reports_a_stalling_jwks_url_as_an_error(self, including, stall, initial_keys):
        including(GATEWAY, SERVICE)
        expected = {"verification_keys": "error", "deny_list": "error"}
        with scripted_server(stall) as server, override_settings(INSTACCESS=remote(server)):
            first_status, first_body = probe()
            # On a busy machine, a probe can reach its time limit before the healthy checks end.
            status, body = wait_until(probe, lambda answer: problems(answer[1]) == expected)

        assert first_status == 503
        assert expected.items() <= problems(first_body).items()
        assert status == 503
        assert set(body["roles"].values()) == {"not ready"}

    def test_o20_ready_endpoint_reports_checks_that_never_end_as_pending(self, monkeypatch, stall):
        for name, check in probes._checks.items():
            stalled = probes.Check(name, stall, roles=check.roles, required=name != "cache")
            monkeypatch.setitem(probes._checks, name, stalled)

        # Ignore the first probe. On a busy machine, the time limit may end before every check has started.
        probe()
        status, body = probe()

        assert status == 503
        assert problems(body) == {**dict.fromkeys(set().union(*CHECKS.values()), "error"), "cache": "warning"}
        for check in body["checks"].values():
            assert check["detail"] == "no answer yet"
            assert check["pending_seconds"] > 0


class TestLogs:
    def test_probes_write_no_log_line(self, client, initial_keys, caplog):
        caplog.set_level(logging.DEBUG)

        for path in (LIVE, READY, f"{READY}?role=gateway"):
            assert client.get(path).status_code == 200

        assert own_lines(caplog) == []

    def test_probes_of_a_process_that_is_not_ready_write_no_log_line(self, client, caplog):
        caplog.set_level(logging.DEBUG)

        for _ in range(3):
            assert client.get(READY).status_code == 503

        assert own_lines(caplog) == []


def own_lines(caplog: Any) -> list[str]:
    """Return the log lines of this app, and Django's log lines about requests."""
    loggers = ("instaccess", "django.request", "django.server")
    return [record.getMessage() for record in caplog.records if record.name.startswith(loggers)]


class TestSecrets:
    def test_ready_endpoint_does_not_return_the_text_of_an_unexpected_error(self, client, monkeypatch, initial_keys):
        def fail() -> None:
            raise RuntimeError("password=hunter2") from OSError("redis://:hunter2@cache")

        monkeypatch.setitem(probes._checks, "cache", probes.Check("cache", fail, roles=["issuer"], required=False))

        response = client.get(READY)

        assert b"hunter2" not in response.content
        assert response.json()["checks"]["cache"] == {
            "status": "warning",
            "detail": "an unexpected error occurred (RuntimeError: OSError)",
        }
