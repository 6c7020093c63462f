"""The geometry of a bar chart in SVG. This module doesn't depend on the content of the chart.

Horizontal lengths are percentages of the width, and vertical lengths are in pixels. If the page becomes wider, the
bars become wider without a script, and the text and the heights keep their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TITLE = 18
"""The height of the space for the title above the bars of a panel, in pixels."""
GAP = 14
"""The height of the space between the bars of a panel and the next panel, in pixels."""
AXIS = 22
"""The height of the space for the axis labels at the bottom of the chart, in pixels."""
LEAST = 2
"""The minimum height of a bar with a count above zero, in pixels. Lower bars would be invisible."""
FILLED = 0.72
"""The width of a bar, as a fraction of the width that is available for each bar."""
WIDEST = 6.0
"""The maximum width of a bar, as a percentage of the width of the chart."""
LABELS = 4
"""The maximum number of labels on the axis. More labels would overlap on a phone."""


@dataclass(frozen=True)
class Series:
    """The data of one panel of the chart.

    Attributes:
        name: the CSS class suffix of the panel.
        title: the title of the panel.
        numbers: the count of each bar, zero or greater.
        height: the height of the highest bar, in pixels.
        first: the index of the first bar that is drawn. Counts before this index are unknown.
    """

    name: str
    title: str
    numbers: Sequence[int]
    height: int
    first: int = 0


@dataclass(frozen=True)
class Rectangle:
    """The attributes of an SVG `rect` element."""

    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True)
class Panel:
    """A panel of the chart.

    `unknown` covers the part of the panel where the counts are unknown. `base` is the vertical position of the count
    zero, in pixels.
    """

    name: str
    title: str
    title_y: int
    top: int
    base: int
    bars: Sequence[Rectangle]
    unknown: Rectangle | None


@dataclass(frozen=True)
class Label:
    """A label of the time axis. `anchor` is the SVG text anchor, which keeps the label inside the chart."""

    x: str
    y: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Column:
    """A column through all panels that contains one bar of each panel, with the text of the tooltip."""

    x: str
    width: str
    text: str


@dataclass(frozen=True)
class Drawing:
    """All elements of the chart. `height` is in pixels."""

    height: int
    panels: Sequence[Panel]
    labels: Sequence[Label]
    columns: Sequence[Column]


def draw(series: Sequence[Series], axis: Sequence[str], columns: Sequence[str]) -> Drawing:
    """Compute the chart. The panels are one below the other, each with its own scale, above a common axis.

    Args:
        series: the data of each panel.
        axis: the label of each bar. Only a few labels are drawn.
        columns: the text of the tooltip of each bar.
    """
    panels, y = [], 0
    for panel_series in series:
        panels.append(_draw_panel(panel_series, y))
        y = panels[-1].base + GAP
    count = len(axis)
    return Drawing(
        height=y - GAP + AXIS,
        panels=panels,
        labels=[_place_label(index, count, axis[index], y - GAP + AXIS - 6) for index in labelled(count)],
        columns=[
            Column(x=_percent(100 * index / count), width=_percent(100 / count), text=text)
            for index, text in enumerate(columns)
        ],
    )


def labelled(count: int, most: int = LABELS) -> list[int]:
    """Return the indexes of the bars that get a label: the first, the last, and evenly spaced bars between them."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]


def _draw_panel(series: Series, y: int) -> Panel:
    top, count = y + TITLE, len(series.numbers)
    base = top + series.height
    highest = max(series.numbers[series.first :], default=0)
    available = 100 / count if count else 0
    width = min(available * FILLED, WIDEST)
    bars = []
    for index in range(series.first, count):
        number = series.numbers[index]
        height = max(series.height * number / highest, LEAST) if number else 0
        bars.append(
            Rectangle(
                x=_percent(available * index + (available - width) / 2),
                y=_pixels(base - height),
                width=_percent(width),
                height=_pixels(height),
            )
        )
    unknown = Rectangle(x="0%", y=str(top), width=_percent(available * series.first), height=str(series.height))
    return Panel(
        name=series.name,
        title=series.title,
        title_y=top - 6,
        top=top,
        base=base,
        bars=bars,
        unknown=unknown if series.first else None,
    )


def _place_label(index: int, count: int, text: str, y: int) -> Label:
    middle = 100 * (index + 0.5) / count
    # If there are many bars, a label that is centred on the first or last bar would extend beyond the chart.
    if count > LABELS and index == 0:
        return Label(x="0%", y=y, anchor="start", text=text)
    if count > LABELS and index == count - 1:
        return Label(x="100%", y=y, anchor="end", text=text)
    return Label(x=_percent(middle), y=y, anchor="middle", text=text)


# Format numbers in Python, because SVG allows only a decimal point, and templates write a decimal comma in some
# languages.
def _percent(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"


def _pixels(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
