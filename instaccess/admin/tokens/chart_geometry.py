"""The geometry of a bar chart, as numbers and texts for an SVG: nothing here knows what is charted.

Across, everything is in per cent of the picture's width, and down in pixels: so bars stretch with the page while
letters and heights stay as they are, on a telephone too, and no script is needed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TITLE = 18
"""Pixels above the bars of a panel, for its title."""
GAP = 14
"""Pixels below them, before the next panel."""
AXIS = 22
"""Pixels at the foot, for what the bars are of."""
LEAST = 2
"""Pixels of the lowest bar that is not zero, so that it is seen."""
FILLED = 0.72
"""Of the width there is for a bar."""
WIDEST = 6.0
"""Per cent of the picture that a bar takes at the most."""
LABELS = 4
"""Labels of the axis at the most; more than these would touch on a telephone."""


@dataclass(frozen=True)
class Series:
    """What one panel shows.

    Args:
        name: of the class for its bars.
        title: in words.
        numbers: one for each bar, none below zero.
        height: of the highest bar, in pixels.
        first: the number of the first bar there is a number for; nothing is drawn before it but the lack of it.
        exact: the number of the first bar that is no estimate.
    """

    name: str
    title: str
    numbers: Sequence[int]
    height: int
    first: int = 0
    exact: int = 0


@dataclass(frozen=True)
class Rectangle:
    """As an SVG has it."""

    x: str
    y: str
    width: str
    height: str
    name: str = ""


@dataclass(frozen=True)
class Panel:
    """One series, drawn. `unknown` covers what there are no numbers for; `base` is where bars stand, in pixels."""

    name: str
    title: str
    title_y: int
    top: int
    base: int
    bars: Sequence[Rectangle]
    unknown: Rectangle | None


@dataclass(frozen=True)
class Label:
    """A text of the axis; `anchor` keeps the outer ones within the picture."""

    x: str
    y: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Column:
    """The place of one bar in all panels, for a pointer to rest on, and what it says then."""

    x: str
    width: str
    text: str


@dataclass(frozen=True)
class Drawing:
    """All there is to draw. `height` is in pixels."""

    height: int
    panels: Sequence[Panel]
    labels: Sequence[Label]
    columns: Sequence[Column]


def draw(series: Sequence[Series], axis: Sequence[str], columns: Sequence[str]) -> Drawing:
    """Panels one below the other, each to its own scale, above one axis.

    `axis` and `columns` hold a text for each bar: of the first, a few are chosen.
    """
    panels, y = [], 0
    for one in series:
        panels.append(_panel(one, y))
        y = panels[-1].base + GAP
    count = len(axis)
    return Drawing(
        height=y - GAP + AXIS,
        panels=panels,
        labels=[_label(number, count, axis[number], y - GAP + AXIS - 6) for number in labelled(count)],
        columns=[
            Column(x=_percent(100 * number / count), width=_percent(100 / count), text=text)
            for number, text in enumerate(columns)
        ],
    )


def labelled(count: int, most: int = LABELS) -> list[int]:
    """Which of so many bars have a label below them: the first, the last, and others evenly between."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]


def _panel(series: Series, y: int) -> Panel:
    top, count = y + TITLE, len(series.numbers)
    base = top + series.height
    highest = max(series.numbers[series.first :], default=0)
    room = 100 / count if count else 0
    width = min(room * FILLED, WIDEST)
    bars = []
    for number in range(series.first, count):
        value = series.numbers[number]
        height = max(series.height * value / highest, LEAST) if value else 0
        bars.append(
            Rectangle(
                x=_percent(room * number + (room - width) / 2),
                y=_pixels(base - height),
                width=_percent(width),
                height=_pixels(height),
                name="about" if number < series.exact else "",
            )
        )
    unknown = Rectangle(x="0%", y=str(top), width=_percent(room * series.first), height=str(series.height))
    return Panel(
        name=series.name,
        title=series.title,
        title_y=top - 6,
        top=top,
        base=base,
        bars=bars,
        unknown=unknown if series.first else None,
    )


def _label(number: int, count: int, text: str, y: int) -> Label:
    middle = 100 * (number + 0.5) / count
    # Of few bars none is near the edge.
    if count > LABELS and number == 0:
        return Label(x="0%", y=y, anchor="start", text=text)
    if count > LABELS and number == count - 1:
        return Label(x="100%", y=y, anchor="end", text=text)
    return Label(x=_percent(middle), y=y, anchor="middle", text=text)


# Written here, not by a template, which would write a comma in half of Europe.
def _percent(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"


def _pixels(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
