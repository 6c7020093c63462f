"""Several ways to do one thing, timed in turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Times = dict[str, list[float]]
"""Seconds a call, by way and round."""


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int = 1,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Each way `calls` times in a row, then the next one; all of it `rounds` times, every other round backwards.

    `time.process_time` is the better clock for what waits for nothing: it stands still while others compute.
    """
    times: Times = {name: [] for name in ways}
    for number in range(warm_up + rounds):
        order = list(ways.items())
        for name, way in order if number % 2 else reversed(order):
            begun = clock()
            for _ in range(calls):
                way()
            took = (clock() - begun) / calls
            if number >= warm_up:
                times[name].append(took)
    return times


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, and the range that nine tenths of many values, or all of a few, are in."""
    ordered = sorted(values)
    cut = len(ordered) // 20
    return {
        "median": round(statistics.median(ordered), digits),
        "low": round(ordered[cut], digits),
        "high": round(ordered[-1 - cut], digits),
    }


def ratios(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Of what was measured in the same round: a machine that is slow for a while is so for both."""
    return spread([value / other for value, other in zip(values, base, strict=True)])


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Text in columns, the first to the left."""
    cells = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [f"\n{title}", ""]
    for row in cells:
        first, *others = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def ranged(values: Mapping[str, float], digits: int = 2) -> str:
    """A spread as text."""
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f} to {values['high']:.{digits}f})"
