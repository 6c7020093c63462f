"""Tests of the recorder of measurements, which a project can replace and stop."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from instaccess import web
from instaccess.exceptions import Reason


class Recorder:
    """A recorder that stores the refusals in a list and ignores all other measurements."""

    def __init__(self) -> None:
        self.refusals: list[tuple[str, str]] = []

    def clock(self) -> float:
        return time.monotonic()

    def issued(self, started: float) -> None:
        pass

    def decided(self, status: int, started: float) -> None:
        pass

    def stage(self, role: str, stage: str, started: float) -> None:
        pass

    def refused(self, role: str, reason: str) -> None:
        self.refusals.append((role, reason))


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    before = {name: getattr(web.metrics, name) for name in ("clock", "issued", "decided", "stage", "refused")}
    recorder = Recorder()
    web.metrics.use(recorder)
    yield recorder
    for name, method in before.items():
        setattr(web.metrics, name, method)


class TestARecorderInUse:
    def test_recorder_receives_each_counted_refusal(self, recorder):
        web.refusal_counter.count("gateway", Reason.EXPIRED)

        assert recorder.refusals == [("gateway", "expired")]

    def test_recorder_receives_nothing_after_the_recording_was_stopped(self, recorder):
        web.metrics.stop()
        web.refusal_counter.count("gateway", Reason.EXPIRED)

        assert recorder.refusals == []
