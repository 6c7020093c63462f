"""Measurements that are read at the time of a scrape, from the database or from the deny list in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from .. import trust
from . import background
from .background import Background


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement, which is reported as a Prometheus gauge.

    Attributes:
        name: the name of the metric.
        help: the description of the metric.
        labels: a mapping from the name of a label to its value. Each label must have a small set of possible values.
    """

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class _Source(NamedTuple):
    role: str
    read: Background[tuple[list[Sample], bool]]


_sources: dict[str, _Source] = {}


def add_source(name: str, read: Callable[[], Iterable[Sample]], *, role: str) -> None:
    """Add a function that reads measurements at the time of a scrape, in at most one thread.

    Args:
        name: the value of the label `source` of `instaccess_scrape_success`.
        read: a function that returns the measurements at a bounded cost. The function may raise any error, even after
            some measurements have been read.
        role: the role that reports the measurements.
    """
    _sources[name] = _Source(role, Background(f"metrics-{name}", partial(_read_all, read)))


def read_sources(roles: Iterable[str]) -> list[Sample]:
    """Read the sources of these roles at the same time, and wait at most `ANSWER_SECONDS` for all of them.

    If a source stalls, its measurements are missing. If a source fails, the measurements after the error are missing.
    For a source that stalls or fails, `instaccess_scrape_success` is 0.
    """
    deadline = time.monotonic() + background.ANSWER_SECONDS
    runs = {name: source.read.start() for name, source in _sources.items() if source.role in roles}
    samples = []
    for name, run in runs.items():
        outcome = run.wait(deadline)
        read, succeeded = outcome[0] if isinstance(outcome, tuple) else ([], False)
        samples += read
        samples.append(
            Sample(
                "instaccess_scrape_success",
                "Whether the measurements of a source could be read.",
                float(succeeded),
                {"source": name},
            )
        )
    return samples


def _read_all(read: Callable[[], Iterable[Sample]]) -> tuple[list[Sample], bool]:
    """Return the measurements that precede the first error, and whether all measurements could be read."""
    samples: list[Sample] = []
    try:
        for sample in read():
            samples.append(sample)
    except Exception:  # The gauge `instaccess_scrape_success` reports the failure.
        return samples, False
    return samples, True


def _read_deny_list() -> Iterator[Sample]:
    try:
        # Load the deny list again if the cached deny list is old. A process that gets no requests doesn't load the
        # deny list. Without this call, the age would grow although the process works.
        trust.current_deny_list()
    finally:
        age, sizes = trust.deny_list_age(), trust.deny_list_sizes()
        if age is not None:
            yield Sample(
                "instaccess_deny_list_age_seconds",
                "Age of the deny list of the process that answers the scrape.",
                age,
            )
        for kind, size in sizes.items():
            yield Sample("instaccess_deny_list_entries", "Number of entries of the deny list.", size, {"kind": kind})


add_source("deny_list", _read_deny_list, role="gateway")
