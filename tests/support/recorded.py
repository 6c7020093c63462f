"""A function that reads a metric of this process, without a request."""

from __future__ import annotations

from instaccess.monitoring import prometheus


def recorded(name: str, **labels: str) -> float:
    """Return the value of a metric, including the counts of earlier tests. Returns 0 if there is no value yet."""
    assert prometheus.recorder is not None
    return prometheus.recorder.registry.get_sample_value(name, labels) or 0.0
