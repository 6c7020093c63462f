"""Tests that a database failure in any endpoint reveals no secret in a report, a mail, a log or a response."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.utils import timezone

from instaccess import signals, urls
from instaccess.issuer import issuing
from tests.error_reports.conftest import PROJECTS, clear_caches
from tests.support.receiving import connected

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("deployment")]

SELF = "/api/v1/users/self"
ISSUE = "/api/v1/inst_access_tokens"
VERIFY = "/internal/gateway/verify"
MONITORING = {"live": "/internal/health/live", "ready": "/internal/health/ready", "metrics": "/internal/metrics"}


class Clients:
    """A test client, with the bearer tokens that the requests contain."""

    def __init__(self, client: Any, access_token: Any, expired: Any, tokens: list[str], secret: str) -> None:
        self.client, self.access_token, self.expired = client, access_token.token, expired.token
        self.encrypted, self.signed, self.service_secret = *tokens, secret

    def send(self, method: str, url: str, bearer: str, **kwargs: Any) -> Any:
        return self.client.generic(method, url, headers={"Authorization": f"Bearer {bearer}"}, **kwargs)


REQUESTS: dict[str, dict[str, Callable[[Clients], Any]]] = {
    "instaccess-issue": {
        "token": lambda clients: clients.send("POST", ISSUE, clients.access_token),
        "masquerade": lambda clients: clients.send("POST", f"{ISSUE}?as_user_id=1", clients.access_token),
        "expired": lambda clients: clients.send("POST", ISSUE, clients.expired),
        "signed": lambda clients: clients.send("POST", ISSUE, clients.signed),
        "query": lambda clients: clients.client.post(f"{ISSUE}?access_token={clients.access_token}"),
        "form": lambda clients: clients.client.post(ISSUE, {"access_token": clients.access_token}),
    },
    "instaccess-issue-at-other-path": {
        "token": lambda clients: clients.send("POST", f"{ISSUE}.json", clients.access_token),
        "query": lambda clients: clients.client.post(f"{ISSUE}.json?access_token={clients.access_token}"),
    },
    "instaccess-verify": {
        "encrypted": lambda clients: clients.send("GET", VERIFY, clients.encrypted),
    },
    "instaccess-jwks": {"": lambda clients: clients.client.get("/internal/services/jwks")},
    "instaccess-revocations": {
        "": lambda clients: clients.send("GET", "/internal/services/revocations", clients.service_secret)
    },
    **{
        f"instaccess-{page}-{role}": {
            "": lambda clients, url=url, role=role: clients.client.get(f"{url}?role={role}")
        }
        for page, url in MONITORING.items()
        for role in ("issuer", "gateway", "service")
    },
    "service": {
        "signed": lambda clients: clients.send("GET", SELF, clients.signed),
        "encrypted": lambda clients: clients.send("GET", SELF, clients.encrypted),
    },
}
"""The requests to each endpoint, by name of the URL and by label. `service` is a view of the host project."""


@pytest.fixture
def clients(client, user, application, make_access_token, every_secret, settings) -> Clients:
    settings.INSTACCESS = {**settings.INSTACCESS, "ALLOW_TOKEN_IN_PARAMETERS": True}
    user.user_permissions.add(Permission.objects.get(codename="masquerade"))
    origin = issuing.Origin("testserver")
    tokens = [
        issuing.issue(user=user, origin=origin, application=application, now=time.time(), encrypted=encrypted)[1]
        for encrypted in (True, False)
    ]
    access_token = make_access_token()
    expired = make_access_token(expires=timezone.now() - timedelta(hours=1))
    every_secret.add(access_token.token, expired.token, *tokens)
    client.raise_request_exception = False
    return Clients(client, access_token, expired, tokens, settings.INSTACCESS["SERVICE_SECRETS"][0])


def text_of(response: Any) -> str:
    """Return the body of a refusal. Returns "" for a success, because this body can contain a token."""
    return response.content.decode() if response.status_code >= 400 else ""


@pytest.mark.parametrize(("name", "label"), [(name, label) for name, each in REQUESTS.items() for label in each])
def test_p27_failure_of_any_sql_statement_of_an_endpoint_reveals_no_secret(name, label, clients, find_leaks):
    assert find_leaks(lambda: text_of(REQUESTS[name][label](clients))) == []


@pytest.mark.parametrize("label", ["query", "form"])
@pytest.mark.parametrize("project", PROJECTS, indirect=True)
def test_p8_p27_failure_of_an_endpoint_with_other_project_settings_reveals_no_token_in_the_parameters(
    label, project, clients, find_leaks
):
    assert find_leaks(lambda: text_of(REQUESTS["instaccess-issue"][label](clients))) == []


FAULTS = {
    "a lost key-encryption key": {"KEY_ENCRYPTION_KEYS": [base64.urlsafe_b64encode(b"k" * 32).decode()]},
    "an invalid key-encryption key": {"KEY_ENCRYPTION_KEYS": ["short"]},
    "an unknown setting": {"LIFETIMES": 60},
    "an invalid realm": {"REALM": '"'},
    "an invalid service secret": {"SERVICE_SECRETS": ["short"]},
    "URLs that can't be reached": {"VERIFICATION_KEYS": "https://127.0.0.1:1/", "DENY_LIST": "https://127.0.0.1:1/"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("name", "label"), [(name, label) for name, each in REQUESTS.items() for label in each])
def test_p27_endpoint_with_invalid_settings_reveals_no_secret(
    fault, name, label, clients, settings, collector, every_secret
):
    settings.INSTACCESS = {**settings.INSTACCESS, **FAULTS[fault]}
    clear_caches()
    collector.clear()
    answer = text_of(REQUESTS[name][label](clients))

    texts: dict[str, Any] = {"answer": answer, **collector.texts()}
    if name == "service" or label == "query":
        # The stack can contain the token, because a service passes the token as a string to methods that a project
        # can override. The stack can also contain the query, because every view has the request as a variable.
        del texts["stack of a logged error"]
    leaks = {kind: every_secret.find_in(text) for kind, text in texts.items()}
    assert not any(leaks.values()), leaks


def test_p27_tests_of_error_reports_request_every_endpoint():
    assert {"service", *(pattern.name for pattern in urls.urlpatterns)} == set(REQUESTS)


@pytest.mark.parametrize("fault", ["no fault", "a lost key-encryption key"])
@pytest.mark.parametrize(("name", "label"), [(name, label) for name, each in REQUESTS.items() for label in each])
def test_p12_p27_failing_receiver_of_a_signal_reveals_no_secret(
    fault, name, label, clients, settings, collector, every_secret
):
    def fail(**facts: Any) -> None:
        raise RuntimeError(facts)

    settings.INSTACCESS = {**settings.INSTACCESS, **FAULTS.get(fault, {})}
    clear_caches()
    collector.clear()
    with connected(signals.token_issued, fail), connected(signals.token_refused, fail):
        answer = text_of(REQUESTS[name][label](clients))

    texts: dict[str, Any] = {"answer": answer, **collector.texts()}
    if label == "query" or (name == "service" and fault != "no fault"):
        # As in `test_p27_endpoint_with_invalid_settings_reveals_no_secret`, the stack can contain the query or the
        # token. For a service without a fault, the stack contains no token, because the functions that have the token
        # return before the signal is sent.
        del texts["stack of a logged error"]
    leaks = {kind: every_secret.find_in(text) for kind, text in texts.items()}
    assert not any(leaks.values()), leaks
