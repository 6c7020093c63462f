"""A worker that has warmed up has its keys at hand, and one that can't starts all the same."""

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
from tests.support.servers import Scripted, reply, scripted

pytestmark = pytest.mark.django_db(transaction=True)  # another thread reads the keys


@pytest.fixture
def no_more_opening(monkeypatch: pytest.MonkeyPatch) -> Any:
    """From when it is called, opening a sealed key is an error."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a sealed key was opened")

    return lambda: monkeypatch.setattr(sealing, "unseal", fail)


def complaints(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


class TestAWorkerThatHasWarmedUp:
    def test_signs_encrypts_and_decrypts_without_opening_a_key(self, initial_keys, user, no_more_opening):
        warm_up()
        no_more_opening()

        _, text = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())

        assert all(ring.current_ring().decryption_keys().values())
        assert text.count(".") == 4

    def test_may_have_done_so_within_an_event_loop(self, initial_keys, no_more_opening):
        async def start() -> None:
            warm_up()

        asyncio.run(start())
        no_more_opening()

        assert all(ring.current_ring().decryption_keys().values())

    def test_has_logged_nothing(self, initial_keys, caplog):
        warm_up()

        assert complaints(caplog) == []


class TestAWorkerOfAnotherRole:
    @pytest.fixture
    def elsewhere(self, rsa_pool, settings) -> Iterator[Scripted]:
        """An issuer, and the settings of a gateway that knows it by its urls."""
        sources._parse_all.cache_clear()
        sources._remote.cache_clear()
        denylist.clear_cache()
        jwks = json.dumps({"keys": [material.public_members(rsa_pool.take("sig"), use="sig")]}).encode()
        private = rsa_pool.take("enc").export_to_pem(private_key=True, password=None).decode()

        def answer(handler: Any) -> None:
            reply(handler, 200, jwks if handler.path == "/jwks" else b'{"revoked":[]}')

        with scripted(answer) as issuer_:
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

    def test_a_gateway_has_read_what_it_may_have_to_go_on_with(self, elsewhere, caplog):
        warm_up()

        assert sorted(asked.path for asked in elsewhere.asked) == ["/jwks", "/revocations"]
        assert complaints(caplog) == []

    def test_a_gateway_that_starts_while_the_issuer_is_away_says_so(self, elsewhere, caplog):
        elsewhere.says(503)
        warm_up()

        assert [line for line in complaints(caplog) if "/jwks answered 503" in line]
        assert [line for line in complaints(caplog) if "/revocations answered 503" in line]

    def test_a_service_misses_no_key_that_it_needs_not(self, elsewhere, settings, caplog, monkeypatch):
        names = ("VERIFICATION_KEYS", "ALLOW_HTTP_URLS")
        settings.INSTACCESS = {name: settings.INSTACCESS[name] for name in names}
        monkeypatch.setattr(apps, "is_installed", lambda name: name != "instaccess")
        warm_up()

        assert [asked.path for asked in elsewhere.asked] == ["/jwks"]
        assert complaints(caplog) == []


class TestAWorkerThatCanNot:
    def test_starts_without_keys(self, db, caplog):
        warm_up()

        assert complaints(caplog) == []

    def test_starts_though_a_key_does_not_open_and_says_so(self, initial_keys, settings, caplog):
        settings.SECRET_KEY = "another one"

        warm_up()

        assert [line for line in complaints(caplog) if line.startswith("not warmed up: UnsealError")]

    def test_starts_though_a_setting_is_bad_and_names_it(self, db, settings, caplog):
        settings.INSTACCESS = {"DECRYPTION_KEYS": ["/nowhere/gateway.pem"]}

        warm_up()

        assert "DECRYPTION_KEYS" in "".join(complaints(caplog))
