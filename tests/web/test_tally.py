"""Counts in memory: exact over threads, bounded, handed over once."""

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
    def test_is_false_until_something_was_counted_and_once_it_was_taken(self, tally):
        assert not tally
        tally.add(kind())
        assert tally
        tally.take()
        assert not tally

    def test_counts_each_kind_by_itself(self, tally):
        for reason in ("revoked", "expired", "revoked"):
            tally.add(kind(reason=reason))

        assert tally.take() == {kind(reason="revoked"): 2, kind(reason="expired"): 1}

    def test_hands_every_count_over_once(self, tally):
        tally.add(kind())

        assert (tally.take(), tally.take()) == ({kind(): 1}, {})

    def test_counts_on_from_what_was_put_back(self, tally):
        tally.add(kind())
        taken = tally.take()
        tally.add(kind())
        tally.put_back(taken)

        assert tally.take() == {kind(): 2}

    def test_counts_exactly_what_sixteen_threads_add_while_another_takes(self, tally):
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


class TestWhatIsMoreThanItTellsApart:
    def test_is_counted_without_client_and_user(self, tally):
        for number in range(5):
            tally.add(kind(client_id=f"c{number}", user_uuid=f"u{number}"))

        told_apart = {kind(client_id=f"c{number}", user_uuid=f"u{number}"): 1 for number in range(3)}
        assert tally.take() == {**told_apart, kind(): 2}

    def test_stays_so_for_the_whole_hour_however_often_counts_are_taken(self, tally):
        taken: dict[Kind, int] = {}
        for number in range(1000):
            tally.add(kind(user_uuid=str(number)))
            taken |= tally.take()

        assert len(taken) == 3 + 1

    def test_does_not_stop_those_it_knows_from_being_counted_by_themselves(self, tally):
        for user_uuid in ("a", "b", "c", "d", "a"):
            tally.add(kind(user_uuid=user_uuid))

        assert tally.take()[kind(user_uuid="a")] == 2

    def test_has_its_place_again_in_the_next_hour(self, tally):
        for number in range(5):
            tally.add(kind(user_uuid=str(number)))
        tally.add(kind(hour=HOUR + 1, user_uuid="9"))

        assert tally.take()[kind(hour=HOUR + 1, user_uuid="9")] == 1


class TestWhatNobodyTakes:
    def test_is_kept_for_a_day_and_then_dropped(self, tally):
        for hour in range(100):
            tally.add(kind(hour=HOUR + hour))

        assert [counted.hour for counted in tally.take()] == list(range(HOUR + 76, HOUR + 100))


class TestAForkedProcess:
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_leaves_its_parents_counts_to_the_parent_and_counts_its_own(self, tally):
        tally.add(kind())
        context = multiprocessing.get_context("fork")
        counted = context.SimpleQueue()

        def child() -> None:
            tally.add(kind(reason="expired"))
            counted.put(tally.take())

        with tally._lock:  # as if a thread were counting at the fork
            process = context.Process(target=child)
            process.start()
        process.join()

        assert counted.get() == {kind(reason="expired"): 1}
        assert tally.take() == {kind(): 1}
