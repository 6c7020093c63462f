"""Functions that render the part `behind_nginx` of benchmarks/results.json as a table and a chart.

The table is in docs/proxies.md.

`benchmarks/report.py` calls this module. If the results don't contain this part, the page and the chart are not
changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import svg
from .behind_nginx import SERVERS, TOKENS
from .serve import ROOT

PART = "behind_nginx"
PAGE = ROOT / "docs/proxies.md"
CHART = ROOT / "benchmarks/results-behind-nginx.svg"
BEGIN, END = "<!-- behind nginx: begin -->\n", "<!-- behind nginx: end -->\n"

COLORS = {"hot": "#4a86b8", "new": "#a9c9dd"}
WIDTH, LEFT, RIGHT, BAR, GAP, TOP, FOOT = 800, 190, 130, 16, 14, 34, 40


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table, and a paragraph that describes the measurement, as Markdown."""
    part = results[PART]
    lines = [["", *TOKENS.values()], ["---"] * 3]
    for server, title in SERVERS.items():
        cells = [_cell(each) for tokens in TOKENS for each in part["rows"] if _is(each, tokens, server)]
        lines.append([title, *cells])
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    new = part["new tokens, kept to auth_request"]
    values = {
        "ratio": f"{new['median']:.2f} ({new['low']:.2f} to {new['high']:.2f})",
        "connections": part["connections"],
        "workers": part["workers"],
        "cores": results["cores"],
    }
    return table + _MEANING.format_map(values)


_MEANING = """
Each ratio compares a rate with the rate of nginx without authentication: the median, and the range of the rounds.
With new tokens, the rate with kept decisions is {ratio} times the rate with `auth_request`. The gateway has {workers}
workers. The load generator has {connections} connections. The workers and the load generator share {cores} cores with
nginx and with a service that answers immediately (`python -m benchmarks.behind_nginx`).
"""


def _is(row: Mapping[str, Any], tokens: str, server: str) -> bool:
    return bool(row["tokens"] == tokens and row["server"] == server)


def _cell(row: Mapping[str, Any]) -> str:
    rate, ratio = f"{row['requests/s']['median']:,.0f}/s", row["ratio"]
    if ratio["low"] == ratio["high"] == 1:
        return rate
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}), {rate}"


def chart(results: Mapping[str, Any]) -> str:
    """Return a chart of the rates as SVG. Bars show medians, and lines show ranges."""
    rows = results[PART]["rows"]
    scale = (WIDTH - LEFT - RIGHT) / max(each["requests/s"]["high"] for each in rows)
    parts = [svg.text(LEFT, 20, "requests per second", "start")]
    y = TOP
    for server, title in SERVERS.items():
        parts.append(svg.text(LEFT - 10, y + BAR + 4, title.replace("`", ""), "end"))
        for tokens in TOKENS:
            (rate,) = (each["requests/s"] for each in rows if _is(each, tokens, server))
            low, high = LEFT + rate["low"] * scale, LEFT + rate["high"] * scale
            width, middle = rate["median"] * scale, y + BAR / 2
            parts += [
                f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 1}" fill="{COLORS[tokens]}"/>',
                f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="currentColor"/>',
                svg.text(high + 6, middle + 4, f"{rate['median']:,.0f}", "start"),
            ]
            y += BAR
        y += GAP
    x = LEFT
    for tokens, title in TOKENS.items():
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLORS[tokens]}"/>')
        parts.append(svg.text(x + 18, y + 10, title, "start"))
        x += 250
    height = y + FOOT - GAP
    described = "; ".join(
        f"{SERVERS[each['server']].replace('`', '')}, {TOKENS[each['tokens']]}: {each['requests/s']['median']:,.0f}"
        for each in rows
    )
    return svg.document(
        parts,
        title="Requests per second behind nginx",
        description=described,
        width=WIDTH,
        height=height,
    )


def write(results: Mapping[str, Any]) -> None:
    """Write the chart, and the table in docs/proxies.md. Does nothing if the results don't contain this part."""
    if PART not in results:
        return
    CHART.write_text(chart(results))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + markdown(results) + END + rest.partition(END)[2])
