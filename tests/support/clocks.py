"""A simulated clock, which advances only if a test advances the clock."""

from __future__ import annotations


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
