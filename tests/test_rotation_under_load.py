"""Tests that four busy workers refuse no valid request during three rotations and a reseal."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone
from jwcrypto.jwk import JWK

from instaccess.conf import KeyEncryptionKey, kek_id
from instaccess.keys import provision, ring, sealing
from instaccess.models import IssuedToken, Key
from instaccess.tokens import jose
from tests.conftest import ISSUE_URL
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE, environment
from tests.support.stored_keys import write

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

WORKERS, CLIENTS, ROTATIONS = 4, 3, 3
CACHE_SECONDS = MAX_AGE = 1
OLD_KEK, NEW_KEK = (base64.urlsafe_b64encode(bytes([fill]) * 32).decode() for fill in (1, 2))
SETTINGS = {"JWKS_MAX_AGE": MAX_AGE, "KEY_CACHE_SECONDS": CACHE_SECONDS, "THROTTLE_LIMIT": None}


@dataclass(frozen=True)
class Answer:
    """An accepted token: the time of its request, the worker that issued the token, and the ids of its keys."""

    requested_at: float
    worker: str
    signing_kid: str
    encryption_kid: str


class Service:
    """A client, a gateway and a service in one object.

    The service keeps a JWK set exactly for its max-age, and does not fetch the set again for an unknown key.
    """

    def __init__(self, port: int, access_token: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {access_token}"}
        self._jwks: dict[str, JWK] = {}
        self._expires_at = float("-inf")
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def _request(self, method: str, path: str, status: int) -> tuple[Any, http.client.HTTPMessage]:
        self._connection.request(method, path, headers=self._headers)
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == status, (response.status, body)
        return json.loads(body), response.headers

    def _verification_keys(self) -> dict[str, JWK]:
        requested_at = time.monotonic()
        if requested_at >= self._expires_at:
            jwks, headers = self._request("GET", "/internal/services/jwks", 200)
            directives = headers["Cache-Control"].replace(" ", "").split(",")
            [max_age] = [int(text.removeprefix("max-age=")) for text in directives if text.startswith("max-age=")]
            known = self._jwks
            self._jwks = {member["kid"]: known.get(member["kid"]) or JWK(**member) for member in jwks["keys"]}
            self._expires_at = requested_at + max_age
        return self._jwks

    def use(self) -> Answer:
        """Request, decrypt and verify one token, and return an `Answer`. Raises the error of a failed step."""
        requested_at = time.monotonic()
        body, headers = self._request("POST", ISSUE_URL, 201)
        signed, encryption_kid = jose.decrypt(body["token"], ring.current_ring().decryption_keys())
        _, signing_kid = jose.verify(signed, self._verification_keys())
        return Answer(requested_at, headers["X-Worker"], signing_kid, encryption_kid)


class Load:
    """Clients in threads that request tokens until they are stopped."""

    def __init__(self, port: int, access_token: str) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(Service(port, access_token),)) for _ in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, service: Service) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    self.answers.append(service.use())
                except Exception as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
        finally:
            connections.close_all()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, condition: Callable[[list[Answer]], bool]) -> None:
        """Wait until the condition is true for the accepted tokens, or until a request fails."""
        deadline = time.monotonic() + PATIENCE
        while not self.failures and not condition(list(self.answers)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextmanager
def gunicorn(**instaccess: Any) -> Iterator[int]:
    """Run four gunicorn workers of the test project on the test database, and yield their port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "tests.support.served:application",
                "--bind", f"fd://{listener.fileno()}", "--workers", str(WORKERS), "--worker-class", "sync",
                "--log-level", "warning",
            ],
            cwd=ROOT,
            env={**environment(), "INSTACCESS_SETTINGS": json.dumps(instaccess)},
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,  # Discard the log, because it would contain a line for each token.
        )  # fmt: skip
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.wait(PATIENCE)


def manage_keys(*args: str, **instaccess: Any) -> Any:
    """Run `manage.py instaccess_keys … --json` in a separate process, as cron does, and return the parsed output."""
    done = subprocess.run(
        [sys.executable, "manage.py", "instaccess_keys", *args, "--json"],
        cwd=ROOT,
        env={**environment(), "INSTACCESS_SETTINGS": json.dumps(instaccess)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rotate_when_due(**instaccess: Any) -> dict[str, str]:
    """Make both current keys due, and run cron's command until the future keys are current.

    Returns:
        The kids of the new current keys by use.
    """
    write(Key.objects.filter(status=Key.Status.CURRENT), activated_at=timezone.now() - timedelta(days=31))
    activated: dict[str, str] = {}
    deadline = time.monotonic() + PATIENCE
    while len(activated) < 2:
        assert time.monotonic() < deadline
        outcomes = manage_keys("rotate", **instaccess)
        activated |= {outcome["use"]: outcome["activated"] for outcome in outcomes if outcome["activated"]}
    return activated


class TestRotationsAndAResealUnderLoad:
    def test_k13_rotation_under_load_refuses_no_token_and_reaches_every_worker_within_the_cache_time(
        self, settings, access_token
    ):
        assert connection.vendor == "postgresql", "This test needs PostgreSQL. Run `make test-services`."
        settings.INSTACCESS = {**SETTINGS, "KEY_ENCRYPTION_KEYS": [OLD_KEK]}
        provision.init()
        settings.INSTACCESS = {**SETTINGS, "KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}
        used = {use: {kid} for use, kid in _current_kids().items()}

        with gunicorn(**settings.INSTACCESS) as port:
            load = Load(port, access_token.token)
            try:
                load.wait_for(lambda answers: len({answer.worker for answer in answers}) == WORKERS)
                for turn in range(ROTATIONS):
                    kids = rotate_when_due(**settings.INSTACCESS)
                    effective_at = time.monotonic() + CACHE_SECONDS
                    if turn == 1:
                        assert manage_keys("reseal", **settings.INSTACCESS)["resealed"] > 0
                    _every_worker_uses(load, kids, effective_at)
                    for use, kid in kids.items():
                        assert kid not in used[use]
                        used[use].add(kid)
            finally:
                load.stop()

        assert load.failures == []
        for use, attribute in ((Key.Use.SIGNING, "signing_kid"), (Key.Use.ENCRYPTION, "encryption_kid")):
            assert {getattr(answer, attribute) for answer in load.answers} == used[use]
            assert len(used[use]) == ROTATIONS + 1
        assert IssuedToken.objects.count() == len(load.answers)
        texts = Key.objects.exclude(sealed_private_jwk="").values_list("sealed_private_jwk", flat=True)
        assert {sealing.sealed_under(text) for text in texts} == {kek_id(KeyEncryptionKey(b"\2" * 32))}


def _current_kids() -> dict[str, str]:
    return dict(Key.objects.filter(status=Key.Status.CURRENT).values_list("use", "kid"))


def _every_worker_uses(load: Load, kids: dict[str, str], effective_at: float) -> None:
    """Check that every worker uses the new keys for each request after `effective_at`."""

    def later(answers: list[Answer]) -> list[Answer]:
        return [answer for answer in answers if answer.requested_at >= effective_at]

    load.wait_for(lambda answers: len({answer.worker for answer in later(answers)}) == WORKERS)
    assert load.failures == []
    late = [answer for answer in later(load.answers) if answer.signing_kid != kids["sig"]]
    assert late == []
    assert [answer for answer in later(load.answers) if answer.encryption_kid != kids["enc"]] == []
