"""Tests of a tally, which is a limited number of counters in memory that several threads share."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import pytest

from instaccess.web.tally import Kind, Tally

HOUR = 500_000


def kind(**changes: Any) -> Kind:
    return Kind(
        **({"hour": HOUR, "role": "gateway", "reason": "revoked", "client_id": "", "user_uuid": ""} | changes)
    )


@pytest.fixture
def tally() -> Tally:
    return Tally(kinds=3, hours=24)


class TestATally:
    def test_tally_is_true_only_while_the_tally_contains_counts(self, tally):
        assert not tally
        tally.add(kind())
        assert tally
        tally.take()
        assert not tally

    def test_tally_counts_each_kind_separately(self, tally):
        for reason in ("revoked", "expired", "revoked"):
            tally.add(kind(reason=reason))

        assert tally.take() == {kind(reason="revoked"): 2, kind(reason="expired"): 1}

    def test_take_returns_every_count_of_the_tally_once(self, tally):
        tally.add(kind())

        assert (tally.take(), tally.take()) == ({kind(): 1}, {})

    def test_put_back_adds_counts_to_the_current_counts_of_the_tally(self, tally):
        tally.add(kind())
        taken = tally.take()
        tally.add(kind())
        tally.put_back(taken)

        assert tally.take() == {kind(): 2}

    def test_tally_counts_exactly_in_sixteen_threads_while_another_thread_takes_the_counts(self, tally):
        def count() -> None:
            for number in range(2000):
                tally.add(kind(user_uuid=str(number % 5)))

        threads = [threading.Thread(target=count) for _ in range(16)]
        for thread in threads:
            thread.start()
        taken = 0
        while any(thread.is_alive() for thread in threads):
            taken += sum(tally.take().values())
        for thread in threads:
            thread.join()

        assert taken + sum(tally.take().values()) == 16 * 2000


class TestTheLimitOfKindsInATally:
    def test_tally_counts_kinds_over_the_limit_without_client_and_user(self, tally):
        for number in range(5):
            tally.add(kind(client_id=f"c{number}", user_uuid=f"u{number}"))

        distinguished = {kind(client_id=f"c{number}", user_uuid=f"u{number}"): 1 for number in range(3)}
        assert tally.take() == {**distinguished, kind(): 2}

    def test_limit_of_kinds_in_a_tally_applies_to_the_whole_hour(self, tally):
        taken: dict[Kind, int] = {}
        for number in range(1000):
            tally.add(kind(user_uuid=str(number)))
            taken |= tally.take()

        assert len(taken) == 3 + 1

    def test_tally_counts_known_kinds_separately_even_after_the_limit_is_reached(self, tally):
        for user_uuid in ("a", "b", "c", "d", "a"):
            tally.add(kind(user_uuid=user_uuid))

        assert tally.take()[kind(user_uuid="a")] == 2

    def test_limit_of_kinds_in_a_tally_is_reset_in_the_next_hour(self, tally):
        for number in range(5):
            tally.add(kind(user_uuid=str(number)))
        tally.add(kind(hour=HOUR + 1, user_uuid="9"))

        assert tally.take()[kind(hour=HOUR + 1, user_uuid="9")] == 1

    def test_limit_of_kinds_in_a_tally_is_reset_if_the_clock_was_set_back(self, tally):
        for number in range(5):
            tally.add(kind(user_uuid=str(number)))
        tally.add(kind(hour=HOUR - 1, user_uuid="9"))

        assert tally.take()[kind(hour=HOUR - 1, user_uuid="9")] == 1


class TestCountsThatAreNotTaken:
    def test_tally_keeps_counts_for_24_hours_if_no_caller_takes_the_counts(self, tally):
        for hour in range(100):
            tally.add(kind(hour=HOUR + hour))

        assert [counted.hour for counted in tally.take()] == list(range(HOUR + 76, HOUR + 100))


class TestAForkedProcess:
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_forked_process_counts_separately_from_the_tally_of_its_parent(self, tally):
        tally.add(kind())
        context = multiprocessing.get_context("fork")
        counted = context.SimpleQueue()

        def child() -> None:
            tally.add(kind(reason="expired"))
            counted.put(tally.take())

        # Hold the lock during the fork, as a thread of a real parent process can do. The child process must not wait
        # for the lock, because no thread of the child process would release the lock.
        with tally._lock:
            process = context.Process(target=child)
            process.start()
        process.join()

        assert counted.get() == {kind(reason="expired"): 1}
        assert tally.take() == {kind(): 1}
