"""Metrics in the format of Prometheus, if the package `prometheus_client` is installed.

In the multi-process mode of `prometheus_client`, the counters and histograms are the sums for all workers of a
server.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any

from .. import web
from ..exceptions import Reason
from .sources import Sample, read_sources

try:
    import prometheus_client
    from prometheus_client import core as prometheus_core
    from prometheus_client import multiprocess
except ImportError:  # The package belongs to the optional extra `metrics`.
    prometheus_client = None

_PREFIX = "instaccess_"
_REASONS = frozenset(map(str, Reason))
_DECISIONS = {204: "accepted", 401: "refused", 503: "unavailable"}
_ISSUE_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_DECISION_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5)
_STAGES = {"issuer": ("lookup", "throttle", "crypto", "audit"), "gateway": ("lookup", "crypto")}


class PrometheusRecorder:
    """A `web.Recorder` that stores its metrics in its own registry, and not in the default registry of Prometheus."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._tokens = prometheus_client.Counter("instaccess_tokens_issued", "Issued tokens.", registry=self.registry)
        self._refusals = prometheus_client.Counter(
            "instaccess_refusals", "Refusals by role and reason.", ["role", "reason"], registry=self.registry
        )
        decisions = prometheus_client.Counter(
            "instaccess_gateway_decisions", "Decisions of the gateway.", ["decision"], registry=self.registry
        )
        self._decisions = {status: decisions.labels(decision) for status, decision in _DECISIONS.items()}
        self._issue_seconds = self._histogram("issue", "Duration of requests that got a token.", _ISSUE_SECONDS)
        self._decision_seconds = self._histogram(
            "decision", "Duration of decisions of the gateway.", _DECISION_SECONDS
        )
        of_issue = self._histogram("issue_stage", "Duration of each stage of issuing.", _ISSUE_SECONDS, ["stage"])
        of_decision = self._histogram(
            "decision_stage", "Duration of each stage of a decision.", _DECISION_SECONDS, ["stage"]
        )
        self._stages = {
            (role, stage): {"issuer": of_issue, "gateway": of_decision}[role].labels(stage)
            for role, stages in _STAGES.items()
            for stage in stages
        }

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str] = ()) -> Any:
        return prometheus_client.Histogram(
            f"instaccess_{name}_duration_seconds", text, labels, buckets=buckets, registry=self.registry
        )

    clock = staticmethod(perf_counter)

    # In multi-process mode, each method below can write to a file. The methods ignore write errors, because a request
    # must not fail if the disk is full.

    def issued(self, started: float) -> None:
        try:
            self._tokens.inc()
            self._issue_seconds.observe(perf_counter() - started)
        except OSError:
            return

    def decided(self, status: int, started: float) -> None:
        try:
            self._decisions[status].inc()
            self._decision_seconds.observe(perf_counter() - started)
        except (OSError, KeyError):
            return

    def stage(self, role: str, stage: str, started: float) -> None:
        try:
            self._stages[role, stage].observe(perf_counter() - started)
        except (OSError, KeyError):
            return

    def refused(self, role: str, reason: str) -> None:
        # A hook can raise an error with its own code. Count these codes together as `other`, because each new value
        # of a label would create a new time series.
        try:
            self._refusals.labels(role, str(reason) if reason in _REASONS else str(Reason.OTHER)).inc()
        except OSError:
            return


class Scrape:
    """A collector of this app's metrics in this process or, in multi-process mode, in all workers of this server.

    Metrics that the project itself defines are left out.
    """

    def __init__(self, roles: Iterable[str]) -> None:
        self._roles = frozenset(roles)

    def collect(self) -> Iterator[Any]:
        """Yield the metric families. Raises OSError or ValueError if PROMETHEUS_MULTIPROC_DIR can't be read."""
        for family in self._recorded():
            if family.name.startswith(_PREFIX):
                # Leave out the samples with the creation time of each metric. Queries don't use these samples, and
                # each sample would be a further time series.
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
                yield family
        families: dict[str, Any] = {}
        for sample in read_sources(self._roles):
            if sample.name not in families:
                families[sample.name] = _family(sample)
            families[sample.name].add_metric(list(sample.labels.values()), sample.value)
        yield from families.values()

    def _recorded(self) -> Iterable[Any]:
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            collected: Iterable[Any] = multiprocess.MultiProcessCollector(None).collect()
        else:
            collected = recorder.registry.collect() if recorder is not None else ()
        return collected


def render(roles: Iterable[str]) -> tuple[bytes, str]:
    """Return the metrics of these roles in the text format of Prometheus, and the content type."""
    return prometheus_client.generate_latest(Scrape(roles)), prometheus_client.CONTENT_TYPE_LATEST


def _family(sample: Sample) -> Any:
    return prometheus_core.GaugeMetricFamily(sample.name, sample.help, labels=list(sample.labels))


recorder = None if prometheus_client is None else PrometheusRecorder()
if recorder is not None:
    web.metrics.use(recorder)
