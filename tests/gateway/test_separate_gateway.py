"""Tests of a gateway that is separate from the issuer, in its own project and in its own process.

The settings of the gateway contain neither the issuer's app nor an OAuth2 provider. The keys of the gateway come from
files or a JWKS URL, and its deny list comes from a shared database or from the issuer.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support import dumps, servers
from tests.support.answers import unverified_jti
from tests.support.demos import SetUp, manage
from tests.support.paths import ROOT
from tests.support.processes import within

SECRET = "0123456789abcdef0123456789abcdef"
VERIFY = "/internal/gateway/verify"

_SETTINGS = """
import json, os
SECRET_KEY = "gateway-only"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = json.loads(os.environ["GATEWAY_APPS"])
MIDDLEWARE = []
ROOT_URLCONF = "gateway_urls"
USE_TZ = True
DATABASES = json.loads(os.environ["GATEWAY_DATABASES"])
INSTACCESS = json.loads(os.environ["GATEWAY_INSTACCESS"])
"""
_URLS = """
from django.urls import include, path
urlpatterns = [path("", include("{0}"))] if "{0}" else []
"""


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without the variables that select the database of the test run."""
    names = {"INSTACCESS_DATABASE", "INSTACCESS_SETTINGS", "SQLITE_NAME", "PORT", "DEMO_DIR"}
    inherited = {n: v for n, v in os.environ.items() if n not in names and not n.lower().endswith("_proxy")}
    return inherited | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | variables


def request(port: int, method: str, path: str, bearer: str = "") -> tuple[int, str | None, bytes]:
    """Send a request and return the status, the Authorization header and the body of the response."""
    connection = HTTPConnection(servers.HOST, port, timeout=servers.PATIENCE)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
        response = connection.getresponse()
        return response.status, response.getheader("Authorization"), response.read()
    finally:
        connection.close()


class Issuer:
    """The test project as an issuer, in a separate process."""

    def __init__(self, folder: Path, set_up: SetUp) -> None:
        self.folder = set_up.copy_to(folder)
        self.env = clean_environment(
            DEMO_DIR=str(folder),
            DJANGO_SETTINGS_MODULE="testproject.settings",
            # Turn throttling off, because some tests request many tokens while they wait until the issuer has
            # reloaded its keys.
            INSTACCESS_SETTINGS=json.dumps({"SERVICE_SECRETS": [SECRET], "THROTTLE_LIMIT": None}),
        )
        self.access_token = set_up.facts["access_token"]
        self.decryption_key = self._export()
        self.port = servers.free_port()
        self.base_url = f"http://{servers.HOST}:{self.port}"
        self.process = self.start()

    def start(self) -> servers.Process:
        command = [sys.executable, "manage.py", "runserver", f"{servers.HOST}:{self.port}", "--noreload"]
        return servers.Process(command, port=self.port, log=self.folder / "issuer.log", env=self.env, cwd=ROOT)

    def manage(self, *args: str) -> str:
        return manage(*args, env=self.env)

    def _export(self) -> Path:
        keys = json.loads(self.manage("instaccess_keys", "list", "--json"))
        (kid,) = [key["kid"] for key in keys if key["use"] == "enc"]
        path = self.folder / "gateway.pem"
        path.write_text(self.manage("instaccess_keys", "export", "--kid", kid, "--private", "--yes"))
        return path

    def jwks_file(self) -> Path:
        path = self.folder / "jwks.json"
        path.write_bytes(request(self.port, "GET", "/internal/services/jwks")[2])
        return path

    def token(self) -> str:
        status, _, body = request(self.port, "POST", "/api/v1/inst_access_tokens", self.access_token)
        assert status == 201, body
        text: str = json.loads(body)["token"]
        return text

    def revoke_key(self, use: str) -> None:
        """Revoke the current signing or encryption key."""
        keys = json.loads(self.manage("instaccess_keys", "list", "--json"))
        (kid,) = [key["kid"] for key in keys if (key["use"], key["status"]) == (use, "current")]
        self.manage("instaccess_keys", "revoke", "--kid", kid, "--reason", "test")

    def revoke(self, jti: str) -> None:
        self.manage("instaccess_tokens", "revoke", "--jti", jti, "--reason", "test")


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory, set_up_once: SetUp) -> Iterator[Issuer]:
    issuer = Issuer(tmp_path_factory.mktemp("issuer"), set_up_once)
    yield issuer
    issuer.process.kill()


@pytest.fixture
def own_issuer(tmp_path: Path, set_up_once: SetUp) -> Iterator[Issuer]:
    """Start an issuer for one test. The test may revoke keys of the issuer."""
    issuer = Issuer(tmp_path / "own issuer", set_up_once)
    yield issuer
    issuer.process.kill()


@pytest.fixture(scope="module")
def token(issuer: Issuer) -> str:
    return issuer.token()


class GatewayProject:
    """A project that is only a gateway: its settings, its management commands and its process."""

    def __init__(
        self,
        folder: Path,
        databases: dict[str, Any],
        settings: dict[str, Any],
        *,
        apps: Sequence[str] = (),
        urls: str = "instaccess.gateway.urls",
    ) -> None:
        (folder / "gateway_settings.py").write_text(_SETTINGS)
        (folder / "gateway_urls.py").write_text(_URLS.format(urls))
        self.folder = folder
        self.env = clean_environment(
            DJANGO_SETTINGS_MODULE="gateway_settings",
            PYTHONPATH=os.pathsep.join([str(ROOT), str(folder)]),
            GATEWAY_DATABASES=json.dumps(databases),
            GATEWAY_INSTACCESS=json.dumps(settings),
            GATEWAY_APPS=json.dumps(list(apps)),
        )

    def start(self) -> servers.Process:
        port = servers.free_port()
        command = [sys.executable, "-m", "django", "runserver", f"{servers.HOST}:{port}", "--noreload"]
        return servers.Process(command, port=port, log=self.folder / "gateway.log", env=self.env, cwd=self.folder)

    def manage(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self._run("-m", "django", *command)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def python(self, script: str) -> str:
        completed = self._run("-c", script)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout.strip()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[..., servers.Process]]:
    """Return a function that starts a gateway-only project with the given databases and settings."""
    started = []

    def start(databases: dict[str, Any], **settings: Any) -> servers.Process:
        started.append(GatewayProject(tmp_path, databases, settings).start())
        return started[-1]

    yield start
    for process in started:
        process.kill()


def shared(issuer: Issuer) -> dict[str, Any]:
    """Return DATABASES with the issuer's database as the default database."""
    options = {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL"}
    name = str(issuer.folder / "demo.sqlite3")
    return {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}}


def remote(issuer: Issuer) -> dict[str, Any]:
    """Return the settings of a gateway that reads the keys and the deny list from the issuer's URLs."""
    return {
        "DECRYPTION_KEYS": [str(issuer.decryption_key)],
        "VERIFICATION_KEYS": f"{issuer.base_url}/internal/services/jwks",
        "DENY_LIST": f"{issuer.base_url}/internal/services/revocations",
        "SERVICE_SECRETS": [SECRET],
        "ALLOW_HTTP_URLS": True,
    }


def verify_status(process: servers.Process, token: str) -> int:
    status, authorization, _ = request(process.port, "GET", VERIFY, token)
    assert (authorization is not None) == (status == 204)
    return status


def accepted_jti(process: servers.Process, token: str) -> str:
    """Check that the gateway accepts a token, and return the token id."""
    status, authorization, _ = request(process.port, "GET", VERIFY, token)
    assert (status, authorization is None) == (204, False)
    return unverified_jti(str(authorization))


def refused_within_five_seconds(process: servers.Process, token: str) -> bool:
    """Return whether the gateway refuses a token with 401 within five seconds."""
    statuses = []

    def is_refused() -> bool:
        statuses.append(verify_status(process, token))
        return statuses[-1] != 204

    return within(5, is_refused) and statuses[-1] == 401


class TestAGatewayWithKeyFilesAndTheIssuersDatabase:
    def test_gateway_with_the_issuers_database_accepts_a_token_until_the_token_is_revoked(self, issuer, gateway):
        token = issuer.token()
        keys = {"DECRYPTION_KEYS": [str(issuer.decryption_key)], "VERIFICATION_KEYS": [str(issuer.jwks_file())]}
        process = gateway(shared(issuer), **keys)

        issuer.revoke(accepted_jti(process, token))
        assert servers.wait_until(lambda: verify_status(process, token), lambda status: status != 204) == 401

    def test_gateway_returns_503_if_the_tables_of_the_deny_list_are_missing(self, issuer, token, gateway, tmp_path):
        empty_databases = {
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "empty.sqlite3")}
        }
        keys = {"DECRYPTION_KEYS": [str(issuer.decryption_key)], "VERIFICATION_KEYS": [str(issuer.jwks_file())]}

        process = gateway(empty_databases, **keys)
        assert verify_status(process, token) == 503
        assert "contains no deny list (no such table: instaccess_revocation)" in process.log.read_text()
        assert "set INSTACCESS['DENY_LIST'] to the URL of the issuer's revocation list" in process.log.read_text()

    def test_gateway_returns_503_and_logs_the_setting_if_there_are_no_keys(self, issuer, token, gateway):
        process = gateway(shared(issuer))

        assert verify_status(process, token) == 503
        assert (
            "INSTACCESS['DECRYPTION_KEYS'] is not set, and this process has no key table" in process.log.read_text()
        )

    def test_gateway_returns_503_and_logs_the_name_of_a_misspelled_setting(self, issuer, token, gateway):
        keys = {"DECRYPTION_KEYS": [str(issuer.decryption_key)], "VERIFICATION_KEYS": [str(issuer.jwks_file())]}
        process = gateway(shared(issuer), **keys, DENY_LIST_SECOND=1)

        assert verify_status(process, token) == 503
        assert "INSTACCESS['DENY_LIST_SECOND'] is not a setting" in process.log.read_text()


class TestAGatewayWithTheIssuersURLs:
    def test_gateway_with_the_issuers_urls_accepts_a_token_until_the_token_is_revoked(self, issuer, gateway):
        token = issuer.token()
        process = gateway({}, **remote(issuer))

        issuer.revoke(accepted_jti(process, token))
        assert servers.wait_until(lambda: verify_status(process, token), lambda status: status != 204) == 401

    def test_gateway_accepts_a_token_while_the_issuer_is_unavailable(self, issuer, token, gateway):
        process = gateway({}, **remote(issuer))
        assert verify_status(process, token) == 204
        issuer.process.kill()
        try:
            assert verify_status(process, token) == 204
        finally:
            issuer.process = issuer.start()

    def test_gateway_returns_503_if_the_gateway_starts_while_the_issuer_is_unavailable(self, issuer, token, gateway):
        issuer.process.kill()
        try:
            process = gateway({}, **remote(issuer))
            assert verify_status(process, token) == 503
        finally:
            issuer.process = issuer.start()
        assert servers.wait_until(lambda: verify_status(process, token), lambda status: status != 503) == 204

    def test_gateway_returns_503_and_does_not_log_the_secret_if_the_secret_is_wrong(self, issuer, token, gateway):
        process = gateway({}, **(remote(issuer) | {"SERVICE_SECRETS": ["f" * 32]}))

        assert verify_status(process, token) == 503
        assert "f" * 32 not in process.log.read_text()

    def test_gateway_refuses_invalid_tokens_and_has_no_other_endpoint(self, issuer, gateway):
        process = gateway({}, **remote(issuer))

        assert verify_status(process, "a.b.c.d.e") == 401
        assert request(process.port, "GET", VERIFY)[0] == 401
        for path in ("/internal/services/jwks", "/internal/services/revocations", "/api/v1/inst_access_tokens", "/"):
            assert request(process.port, "GET", path)[0] == 404


class TestARevokedKey:
    """Tests that a separate gateway refuses tokens of a revoked key even if the gateway has the key (case G32)."""

    @pytest.mark.parametrize("use", ["sig", "enc"])
    def test_g32_gateway_with_the_issuers_urls_refuses_tokens_of_a_revoked_key(self, own_issuer, gateway, use):
        token = own_issuer.token()
        process = gateway({}, **remote(own_issuer))
        assert verify_status(process, token) == 204

        own_issuer.revoke_key(use)

        assert refused_within_five_seconds(process, token)
        # The gateway doesn't have the private key of a new encryption key, so it can't decrypt tokens for this key.
        if use == "sig":
            # The issuer signs with the revoked key until the issuer reloads its keys, so request tokens until a new
            # key is used.
            assert within(servers.PATIENCE, lambda: verify_status(process, own_issuer.token()) == 204)

    def test_g32_gateway_with_key_files_and_the_issuers_database_refuses_tokens_of_a_revoked_key(
        self, own_issuer, gateway
    ):
        token = own_issuer.token()
        keys = {
            "DECRYPTION_KEYS": [str(own_issuer.decryption_key)],
            "VERIFICATION_KEYS": [str(own_issuer.jwks_file())],
        }
        process = gateway(shared(own_issuer), **keys)
        assert verify_status(process, token) == 204

        own_issuer.revoke_key("sig")

        assert refused_within_five_seconds(process, token)


class TestARestoredIssuer:
    """Tests of case K15: the issuer's database is restored from a copy, and gateways have their own key files."""

    @pytest.fixture(params=["deny list from the URL", "deny list from the database"])
    def options(self, request, own_issuer) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the databases and the settings of a gateway that keeps accepting the keys of a file."""
        own_keys = {"VERIFICATION_KEYS": [str(own_issuer.jwks_file())]}
        if "URL" in request.param:
            return {}, remote(own_issuer) | own_keys
        return shared(own_issuer), {"DECRYPTION_KEYS": [str(own_issuer.decryption_key)]} | own_keys

    def restore(self, issuer: Issuer) -> None:
        issuer.process.kill()
        dumps.copy_sqlite(issuer.folder / "backup", issuer.folder / "demo.sqlite3")
        issuer.process = issuer.start()

    def test_k15_running_gateway_and_new_gateway_refuse_old_tokens_when_after_restore_has_run(
        self, own_issuer, gateway, options
    ):
        databases, settings = options
        dumps.copy_sqlite_online(own_issuer.folder / "demo.sqlite3", own_issuer.folder / "backup")
        running = gateway(databases, **settings)
        revoked, issued_later = own_issuer.token(), own_issuer.token()
        own_issuer.revoke(accepted_jti(running, revoked))
        assert refused_within_five_seconds(running, revoked)

        self.restore(own_issuer)

        def reports_the_restore() -> bool:
            assert verify_status(running, revoked) == 401
            return "instaccess_keys after-restore" in running.log.read_text()

        assert within(servers.PATIENCE, reports_the_restore)
        assert verify_status(running, issued_later) == 204

        own_issuer.manage("instaccess_keys", "after-restore", "--yes")

        assert refused_within_five_seconds(running, issued_later)
        new = gateway(databases, **settings)
        assert [verify_status(new, token) for token in (revoked, issued_later)] == [401, 401]


class TestSystemChecksOfAGateway:
    """Tests of the system checks of a project with `instaccess.gateway` in INSTALLED_APPS."""

    APPS = ("instaccess.gateway",)

    def test_checks_of_a_gateway_report_nothing_for_valid_settings(self, issuer, tmp_path):
        completed = GatewayProject(tmp_path, {}, remote(issuer), apps=self.APPS).manage("check")

        assert (completed.returncode, completed.stdout) == (0, "System check identified no issues (0 silenced).\n"), (
            completed.stderr
        )

    def test_checks_of_a_gateway_suggest_the_correct_name_of_a_misspelled_setting(self, tmp_path):
        completed = GatewayProject(tmp_path, {}, {"VERIFICATION_KEY": []}, apps=self.APPS).manage("check")

        assert "Did you mean VERIFICATION_KEYS?" in completed.stderr

    def test_checks_of_a_gateway_report_misspelled_and_invalid_settings(self, issuer, tmp_path):
        settings = {"DECRYPTION_KEY": [], "LEEWAY": 301}
        completed = GatewayProject(tmp_path, {}, settings, apps=self.APPS).manage("check")

        assert completed.returncode == 1
        assert set(re.findall(r"instaccess\.([EW]\d+)", completed.stderr)) == {"E002", "E032"}

    @pytest.mark.parametrize(
        ("urls", "ids"),
        [("instaccess.gateway.urls", {"E051", "E052", "E053"}), ("", {"E052"})],
        ids=["gateway", "service"],
    )
    def test_checks_of_a_gateway_or_a_service_report_missing_keys(self, tmp_path, urls, ids):
        completed = GatewayProject(tmp_path, {}, {}, apps=self.APPS, urls=urls).manage("check")

        assert completed.returncode == 1
        assert set(re.findall(r"instaccess\.([EW]\d+)", completed.stderr)) == ids

    def test_checks_of_a_gateway_report_a_redirect_to_https(self, issuer, tmp_path):
        project = GatewayProject(tmp_path, {}, remote(issuer), apps=self.APPS)
        with (tmp_path / "gateway_settings.py").open("a") as file:
            file.write("SECURE_SSL_REDIRECT = True\n")

        assert "instaccess.W010" in project.manage("check", "--deploy").stderr

    def test_checks_of_a_gateway_load_neither_models_nor_an_oauth2_provider(self, issuer, tmp_path):
        project = GatewayProject(tmp_path, {}, remote(issuer), apps=self.APPS)

        loaded = project.python(
            "import django, sys; django.setup()\n"
            "from django.core.management import call_command; call_command('check')\n"
            "from django.apps import apps; assert not list(apps.get_models())\n"
            "print([n for n in sys.modules if n in ('instaccess.models', 'oauth2_provider', 'rest_framework')])"
        )

        assert loaded.splitlines()[-1] == "[]"


class TestAGatewayProcessWithoutRestFrameworkAndOAuth2:
    """Tests of a gateway that has no database, and can't import REST framework or django-oauth-toolkit."""

    def test_gateway_accepts_and_refuses_tokens_without_loading_the_models(self, issuer, tmp_path):
        project = GatewayProject(tmp_path, {}, remote(issuer), apps=("instaccess.gateway",))

        printed = project.python(
            "import sys\n"
            "for name in ('rest_framework', 'oauth2_provider', 'oauthlib'): sys.modules[name] = None\n"
            "import django; django.setup()\n"
            "from django.test import Client\n"
            f"headers = {{'Authorization': 'Bearer {issuer.token()}'}}\n"
            f"print(Client().get('{VERIFY}', headers=headers).status_code, Client().get('{VERIFY}').status_code)\n"
            "print('instaccess.models' in sys.modules)"
        )

        assert printed.splitlines()[-2:] == ["204 401", "False"]


class TestURLsThatNeedTheIssuersApp:
    @pytest.mark.parametrize("urls", ["instaccess.urls", "instaccess.issuer.urls", "instaccess.issuer.urls_internal"])
    def test_check_names_the_app_if_the_urls_of_the_issuer_are_included_without_the_app(self, tmp_path, urls):
        completed = GatewayProject(
            tmp_path, {}, {}, apps=["django.contrib.auth", "django.contrib.contenttypes"], urls=urls
        ).manage("check")

        assert completed.returncode == 1
        assert (
            "ImproperlyConfigured: an issuer needs 'instaccess': add 'instaccess' to INSTALLED_APPS"
            in completed.stderr.splitlines()[-1]
        )

    def test_check_names_a_missing_oauth2_provider(self, tmp_path):
        apps = ["django.contrib.auth", "django.contrib.contenttypes", "instaccess"]
        completed = GatewayProject(tmp_path, {}, {}, apps=apps).manage("check")

        assert completed.returncode == 1
        assert (
            "ImproperlyConfigured: an issuer needs 'oauth2_provider': add 'oauth2_provider' to INSTALLED_APPS"
            in completed.stderr.splitlines()[-1]
        )


class TestAGatewayProcess:
    def test_gateway_loads_neither_models_nor_an_oauth2_provider(self, issuer, tmp_path):
        project = GatewayProject(tmp_path, {}, remote(issuer))

        loaded = project.python(
            "import django, sys; django.setup()\n"
            "from django.test import Client\n"
            f"Client().get('{VERIFY}')\n"
            "print([n for n in sys.modules if n in ('instaccess.models', 'oauth2_provider', 'rest_framework')])"
        )

        assert loaded.splitlines()[-1] == "[]"

    def test_gateway_counts_no_refusals_without_a_table_for_the_counts(self, issuer, tmp_path):
        project = GatewayProject(tmp_path, {}, remote(issuer))

        counted = project.python(
            "import django; django.setup()\n"
            "from django.test import Client\n"
            f"print(Client().get('{VERIFY}').status_code)\n"
            "from instaccess.exceptions import Reason\nfrom instaccess.web import refusals\n"
            "refusals.counter.count('gateway', Reason.EXPIRED)\n"
            "print(refusals.counter.flush())"
        )

        assert counted.splitlines()[-2:] == ["401", "0"]
