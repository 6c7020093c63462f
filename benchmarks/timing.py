"""Functions that time alternatives in turn. Other load on the machine then affects all alternatives equally."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Times = dict[str, list[float]]
"""The times per call in seconds: one list per alternative, with one time per round."""


def in_turns(
    alternatives: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int = 1,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time each alternative in `rounds` rounds of `calls` calls. Every other round runs in reverse order.

    For code that never waits, pass `time.process_time` as the clock, because this clock excludes the time of other
    processes.
    """
    times: Times = {name: [] for name in alternatives}
    for number in range(warm_up + rounds):
        order = list(alternatives.items())
        for name, run in order if number % 2 else reversed(order):
            started = clock()
            for _ in range(calls):
                run()
            seconds = (clock() - started) / calls
            if number >= warm_up:
                times[name].append(seconds)
    return times


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return the median, and the range of 90% of the values.

    If there are fewer than 20 values, the range contains all values.
    """
    ordered = sorted(values)
    cut = len(ordered) // 20
    return {
        "median": round(statistics.median(ordered), digits),
        "low": round(ordered[cut], digits),
        "high": round(ordered[-1 - cut], digits),
    }


def ratios(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Return the spread of the ratios `value / base` per round. Other load affects both values of a round equally."""
    return spread([value / other for value, other in zip(values, base, strict=True)])


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format a table as text. The first column is aligned left, and the other columns are aligned right."""
    cells = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [f"\n{title}", ""]
    for row in cells:
        first, *others = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def ranged(values: Mapping[str, float], digits: int = 2) -> str:
    """Format the result of `spread` as the median and the range, such as "1.20 (1.10 to 1.35)"."""
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f} to {values['high']:.{digits}f})"
