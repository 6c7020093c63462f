"""The calls with which the roles report measurements. By default, the calls do nothing.

The package `monitoring` passes in a recorder if `prometheus_client` is installed. If there is no recorder, each call
takes less than 0.1 µs.
"""

from __future__ import annotations

import math
from typing import Protocol


class Recorder(Protocol):
    """A recorder of measurements. Its methods never raise an error, because they run within requests."""

    def clock(self) -> float:
        """Return the current time of the recorder's clock, in seconds, as the start of a measurement."""

    def issued(self, started: float) -> None:
        """Record an issued token. `started` is the time of the clock at the start of the request."""

    def decided(self, status: int, started: float) -> None:
        """Record a decision of the gateway. `status` is the HTTP status of the response."""

    def stage(self, role: str, stage: str, started: float) -> None:
        """Record the duration of a stage, such as `crypto`, of a request to the issuer or the gateway."""

    def refused(self, role: str, reason: str) -> None:
        """Record a refusal."""


class _NoRecorder:
    def clock(self) -> float:
        return math.nan  # No method of this class uses the time.

    def issued(self, started: float) -> None:
        pass

    def decided(self, status: int, started: float) -> None:
        pass

    def stage(self, role: str, stage: str, started: float) -> None:
        pass

    def refused(self, role: str, reason: str) -> None:
        pass


class Metrics:
    """The measurements of this process. Each attribute, such as `issued`, is a method of the recorder in use."""

    def __init__(self) -> None:
        self.use(_NoRecorder())

    def use(self, recorder: Recorder) -> None:
        """Use this recorder from now on."""
        self.clock = recorder.clock
        self.issued = recorder.issued
        self.decided = recorder.decided
        self.stage = recorder.stage
        self.refused = recorder.refused

    def stop(self) -> None:
        """Record nothing from now on."""
        self.use(_NoRecorder())


metrics = Metrics()
