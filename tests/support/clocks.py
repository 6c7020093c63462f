"""Clocks that stand still until a test moves them."""

from __future__ import annotations


class Clock:
    """In place of the module `time`, or of one function of it. No two moments are the same unless it is `frozen`."""

    def __init__(self, *, frozen: bool = False) -> None:
        self.now = 1000.0
        self._step = 0.0 if frozen else 1e-6

    def __call__(self) -> float:
        self.now += self._step
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds

    time = monotonic = __call__
