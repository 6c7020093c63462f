"""A worker that has warmed up has its keys at hand, and one that can't starts all the same."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from instaccess import issuer, keyring, sealing
from instaccess.warmup import warm_up

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

        _, text = issuer.issue(user=user, origin=issuer.Origin("canvas.example.edu"), now=time.time())

        assert all(keyring.current().decryption_keys().values())
        assert text.count(".") == 4

    def test_may_have_done_so_within_an_event_loop(self, initial_keys, no_more_opening):
        async def start() -> None:
            warm_up()

        asyncio.run(start())
        no_more_opening()

        assert all(keyring.current().decryption_keys().values())

    def test_has_logged_nothing(self, initial_keys, caplog):
        warm_up()

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
