"""A simulated clock, which advances only if a test advances the clock, and events whose waits advance the clock."""

from __future__ import annotations

import threading


class Clock:
    """A replacement for the module `time`, or for one of its functions.

    Each reading of the clock is one microsecond later than the previous reading, unless the clock is `frozen`.
    """

    def __init__(self, *, frozen: bool = False) -> None:
        self.now = 1000.0
        self._step = 0.0 if frozen else 1e-6

    def __call__(self) -> float:
        self.now += self._step
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    time = monotonic = __call__


class EventsOnAClock:
    """A replacement for the name `threading` in a module. Waiting for its events takes no real time.

    If an event isn't set, a call of its method `wait` advances the clock by `timeout`, and returns immediately.
    """

    Lock = staticmethod(threading.Lock)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def Event(self) -> threading.Event:
        return _EventOnAClock(self._clock)


class _EventOnAClock(threading.Event):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            assert timeout is not None, "the caller would wait forever"
            self._clock.advance(max(timeout, 0))
        return self.is_set()
