"""Tests of how a signal is sent: to every receiver, immediately or after the commit.

If no receiver is connected, the facts of the signal aren't built.
"""

from __future__ import annotations

import functools
from typing import Any, TypedDict

import pytest
from django.db import connection, transaction

from instaccess.logs import get_logger
from instaccess.signals import FactSignal
from tests.support.receiving import connected, received


class Facts(TypedDict):
    number: int


@pytest.fixture
def signal() -> FactSignal[Facts]:
    return FactSignal("number_found", get_logger("instaccess.audit"))


def one() -> Facts:
    return {"number": 1}


def fail(**facts: Any) -> None:
    webhook = "/".join(["https://hooks.example", "secret"])
    raise RuntimeError(webhook)


class TestASignal:
    def test_each_receiver_of_a_signal_gets_the_facts(self, signal):
        with received(signal) as first, received(signal) as second:
            signal.announce(None, one)

        assert first == second == [{"number": 1}]

    def test_receiver_that_is_connected_to_another_sender_receives_no_signal(self, signal):
        numbers: list[int] = []
        signal.connect(lambda number, **kwargs: numbers.append(number), sender=dict, weak=False)

        signal.announce(list, one)

        assert numbers == []

    def test_facts_of_a_signal_are_not_built_if_no_receiver_is_connected(self, signal):
        built: list[str] = []

        def build() -> Facts:
            built.append("now" if connection.in_atomic_block else "later")
            return one()

        signal.announce(None, build)
        signal.announce_after_commit(None, build, using="default")

        assert built == []

    def test_failing_receiver_does_not_stop_the_sender_and_the_other_receivers(self, signal):
        with received(signal) as before, connected(signal, fail), received(signal) as after:
            signal.announce(None, one)

        assert before == after == [{"number": 1}]

    def test_log_line_names_the_failing_receiver_and_the_class_and_frames_of_its_error_but_not_the_message(
        self, signal, caplog
    ):
        with connected(signal, fail):
            signal.announce(None, one)

        [line] = caplog.records
        assert line.name == "instaccess.audit"
        headline = "receiver tests.test_signals.fail of signal number_found failed: RuntimeError"
        assert line.getMessage().splitlines()[0] == headline
        assert "in fail" in line.getMessage().splitlines()[-2]
        assert line.exc_info is None
        assert "https://hooks.example/secret" not in repr(vars(line))

    def test_failing_asynchronous_receiver_does_not_stop_the_next_asynchronous_receiver(self, signal, caplog):
        numbers: list[int] = []

        async def receive(number: int, **kwargs: Any) -> None:
            numbers.append(number)

        async def fail_later(**facts: Any) -> None:
            raise RuntimeError

        with connected(signal, fail_later), connected(signal, receive):
            signal.announce(None, one)

        assert numbers == [1]
        assert "fail_later of signal number_found failed: RuntimeError" in caplog.text

    def test_log_contains_no_arguments_of_a_failing_receiver(self, signal, caplog):
        class Hook:
            def __init__(self, url: str) -> None:
                self.url = url

            def __repr__(self) -> str:
                return self.url

            def __call__(self, **facts: Any) -> None:
                raise ValueError

        secret = "b2a7"
        with connected(signal, Hook(secret)), connected(signal, functools.partial(fail, password=secret)):
            signal.announce(None, one)

        first, second = [record.getMessage().splitlines()[0] for record in caplog.records]
        assert first.endswith("Hook of signal number_found failed: ValueError")
        assert second == "receiver functools.partial of signal number_found failed: RuntimeError"
        assert secret not in caplog.text

    def test_facts_that_cannot_be_built_do_not_stop_the_sender(self, signal, caplog):
        def build() -> Facts:
            raise LookupError(f"{1} apple")

        with received(signal) as facts:
            signal.announce(None, build)

        assert facts == []
        assert "signal number_found could not be sent: LookupError" in caplog.text
        assert "1 apple" not in caplog.text


@pytest.mark.django_db(transaction=True)
class TestASignalAfterACommit:
    def test_signal_after_a_commit_is_sent_immediately_outside_a_transaction(self, signal):
        with received(signal) as facts:
            signal.announce_after_commit(None, one, using="default")

            assert facts == [{"number": 1}]

    def test_signal_is_sent_after_the_outermost_transaction_was_committed(self, signal):
        with received(signal) as facts:
            with transaction.atomic():
                with transaction.atomic():
                    signal.announce_after_commit(None, one, using="default")
                assert facts == []

            assert facts == [{"number": 1}]

    def test_signal_after_a_commit_is_not_sent_if_the_transaction_is_rolled_back(self, signal):
        with received(signal) as facts, transaction.atomic():
            signal.announce_after_commit(None, one, using="default")
            transaction.set_rollback(True)

        assert facts == []

    def test_receiver_that_fails_after_the_commit_does_not_stop_the_sender(self, signal, caplog):
        with received(signal) as facts, connected(signal, fail), transaction.atomic():
            signal.announce_after_commit(None, one, using="default")

        assert facts == [{"number": 1}]
        assert "of signal number_found failed: RuntimeError" in caplog.text
