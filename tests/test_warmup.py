"""Tests of the warm-up, which loads the keys of a worker. A worker starts even if the warm-up fails."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps

from instaccess.issuer import issuing
from instaccess.keys import ring, sealing
from instaccess.trust import denylist, material, sources
from instaccess.warmup import warm_up
from tests.support.servers import ScriptedServer, reply, scripted_server

# Commit the rows, because `warm_up` reads the keys in a separate thread.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def forbid_unsealing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes every later attempt to unseal a key fail."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a key was unsealed")

    return lambda: monkeypatch.setattr(sealing, "unseal", fail)


def warnings_in(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


class TestAWorkerAfterWarmUp:
    def test_worker_signs_encrypts_and_decrypts_after_warm_up_without_unsealing_a_key(
        self, initial_keys, user, forbid_unsealing
    ):
        warm_up()
        forbid_unsealing()

        _, text = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())

        assert all(ring.current_ring().decryption_keys().values())
        assert text.count(".") == 4

    def test_warm_up_works_inside_an_event_loop(self, initial_keys, forbid_unsealing):
        async def start() -> None:
            warm_up()

        asyncio.run(start())
        forbid_unsealing()

        assert all(ring.current_ring().decryption_keys().values())

    def test_successful_warm_up_logs_no_warning(self, initial_keys, caplog):
        warm_up()

        assert warnings_in(caplog) == []


class TestAWorkerOfAnotherRole:
    @pytest.fixture
    def remote_issuer(self, rsa_pool, settings) -> Iterator[ScriptedServer]:
        """Yield a scripted issuer, and configure a gateway that fetches from the issuer's URLs."""
        sources._parse_decryption_keys.cache_clear()
        sources._parse_verification_keys.cache_clear()
        sources._remote.cache_clear()
        denylist.clear_cache()
        jwks = json.dumps({"keys": [material.public_members(rsa_pool.take("sig"), use="sig")]}).encode()
        private = rsa_pool.take("enc").export_to_pem(private_key=True, password=None).decode()

        def answer(handler: Any) -> None:
            reply(handler, 200, jwks if handler.path == "/jwks" else b'{"revoked":[]}')

        with scripted_server(answer) as issuer_:
            settings.INSTACCESS = {
                "VERIFICATION_KEYS": f"{issuer_.base_url}/jwks",
                "DENY_LIST": f"{issuer_.base_url}/revocations",
                "SERVICE_SECRETS": ["s" * 32],
                "DECRYPTION_KEYS": [private],
                "ALLOW_HTTP_URLS": True,
            }
            yield issuer_
        denylist.clear_cache()
        sources._remote.cache_clear()

    def test_warm_up_of_a_gateway_fetches_the_jwks_and_the_deny_list(self, remote_issuer, caplog):
        warm_up()

        assert sorted(request.path for request in remote_issuer.requests) == ["/jwks", "/revocations"]
        assert warnings_in(caplog) == []

    def test_warm_up_of_a_gateway_logs_that_the_issuer_is_unavailable(self, remote_issuer, caplog):
        remote_issuer.answer_with(503)
        warm_up()

        assert [line for line in warnings_in(caplog) if "/jwks answered 503" in line]
        assert [line for line in warnings_in(caplog) if "/revocations answered 503" in line]

    def test_warm_up_of_a_service_does_not_report_missing_decryption_keys(
        self, remote_issuer, settings, caplog, monkeypatch
    ):
        names = ("VERIFICATION_KEYS", "ALLOW_HTTP_URLS")
        settings.INSTACCESS = {name: settings.INSTACCESS[name] for name in names}
        monkeypatch.setattr(apps, "is_installed", lambda name: name != "instaccess")
        warm_up()

        assert [request.path for request in remote_issuer.requests] == ["/jwks"]
        assert warnings_in(caplog) == []


class TestAWorkerWithAProblem:
    def test_worker_without_keys_starts_and_logs_no_warning(self, db, caplog):
        warm_up()

        assert warnings_in(caplog) == []

    def test_worker_starts_and_logs_that_a_key_cannot_be_unsealed(self, initial_keys, settings, caplog):
        settings.SECRET_KEY = "another one"

        warm_up()

        assert [line for line in warnings_in(caplog) if line.startswith("a step of the warm-up failed (UnsealError)")]

    def test_worker_starts_and_logs_the_name_of_an_invalid_setting(self, db, settings, caplog):
        settings.INSTACCESS = {"DECRYPTION_KEYS": ["/nowhere/gateway.pem"]}

        warm_up()

        assert "DECRYPTION_KEYS" in "".join(warnings_in(caplog))
