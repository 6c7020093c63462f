"""A command that renders benchmarks/results.json: a table and a summary for docs/speed.md, and a chart as SVG.

    python -m benchmarks.report

The command writes the chart next to the results, and the Markdown into docs/speed.md between two markers. It also
writes the table and the chart of `report_nginx`. `make bench` runs the command at the end. A test checks that the
page is up to date.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import report_nginx, svg
from .serve import ROOT

RESULTS = ROOT / "benchmarks/results.json"
CHART = ROOT / "benchmarks/results.svg"
PAGE = ROOT / "docs/speed.md"
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->\n"

VENDORS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
COLORS = {"sqlite": "#a9c9dd", "postgresql": "#4a86b8"}
ISSUING = "nothing"
"""The name of the endpoint with which all issuing endpoints are compared."""

WIDTH, LEFT, RIGHT, BAR, GAP, TOP, FOOT = 800, 300, 70, 13, 14, 34, 46


def table(results: Mapping[str, Any]) -> str:
    """Return the table of the main figures as Markdown."""
    http = {vendor: {each["name"]: each for each in results["http"][vendor]["endpoints"]} for vendor in VENDORS}
    first = next(iter(http.values()))
    rows = []
    for name, endpoint in first.items():
        baseline = first[endpoint["compared with"]]["title"]
        cells = [_cell(http[vendor][name]) for vendor in VENDORS]
        rows.append(
            [_emphasize(name, endpoint["title"]), "" if name == endpoint["compared with"] else baseline, *cells]
        )
    for what, title in (("mint", "encode a token"), ("open", "decode a token that is not cached")):
        for each in results["crypto"][what][1:]:
            cell = f"{each['ratio']['median']:.2f}, {each['microseconds']['median']:.0f} µs"
            name = "ours" if each["title"] == "instaccess" else ""
            rows.append([_emphasize(name, f"{each['title']}, {title}"), "time of bare OpenSSL", cell, "the same"])
    header = ["", "compared with", *VENDORS.values()]
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(endpoint: Mapping[str, Any]) -> str:
    rate = f"{endpoint['requests/s']['median']:.0f}/s"
    if endpoint["name"] == endpoint["compared with"]:
        return rate
    ratio = endpoint["ratio"]
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}), {rate}"


def _emphasize(name: str, title: str) -> str:
    return f"**{title}**" if name in {"ours", "gateway", "service"} else title


def meaning(results: Mapping[str, Any]) -> str:
    """Return a Markdown summary: the machine, and the figures for capacity planning."""
    http = results["http"]["postgresql"]
    rates = {each["name"]: each["requests/s"]["median"] / http["workers"] for each in http["endpoints"]}
    sizes = {int(rows): size for rows, size in results["growth"]["bytes of table and indexes"].items()}
    most = max(sizes)
    slower = {what: by[str(most)]["median"] for what, by in results["growth"]["ratio to empty"].items()}
    servers = {each["name"]: each["endpoints"]["ours"]["ratio"]["median"] for each in results["servers"]["servers"]}
    memory, packages = results["memory"], results["packages"]
    values = {
        "date": results["date"],
        "machine": f"{results['cores']} cores ({results['cpu']})",
        "versions": f"Python {results['python']}, Django {packages['Django']}, PostgreSQL {results['postgresql']}",
        "workers": http["workers"],
        "tokens": f"{rates['ours']:.0f}",
        "day": f"{rates['ours'] * 86_400 / 1e6:.0f}",
        "callers": f"{rates['ours'] * 20:,.0f}",
        "row": f"{sizes[most] / most:.0f}",
        "million": f"{sizes[most] / most / 1000:.1f}",
        "most": f"{most:,}",
        "issue": f"{slower['issue']:.2f}",
        "deny": f"{slower['read the deny list']:.2f}",
        "gateway": f"{rates['gateway']:.0f}",
        "memory": f"{memory['growth, bytes'] / 2**20:+.1f}",
        "issues": f"{memory['issues']:,}",
        "start": f"{results['startup']['added, ms']['median']:.0f}",
        "gthread": f"{servers['gthread']:.2f}",
        "uvicorn": f"{servers['uvicorn-pool']:.2f}",
    }
    parts = {"long_work": _long_work, "revocation": _revocation}
    return _MEANING.format_map(values) + "".join(
        describe(results[part]) for part, describe in parts.items() if part in results
    )


def _long_work(long_work: Mapping[str, Any]) -> str:
    """Return a Markdown summary of the CPU time and the memory of the commands that process every audit row."""
    sizes = {int(rows): operations for rows, operations in long_work["sizes"].items()}
    most, least = sizes[max(sizes)], sizes[min(sizes)]
    cpu = {name: each["CPU per row, microseconds"] for name, each in most.items()}
    peaks = {name: each["peak memory, bytes"] for name, each in most.items()}
    growth = peaks["verify"] - least["verify"]["peak memory, bytes"]
    return _LONG_WORK.format_map(
        {
            # If this part was measured separately, `measured` contains the date and the machine of this measurement.
            "measured": f" ({long_work['measured']})" if "measured" in long_work else "",
            "rows": f"{max(sizes):,}",
            "baseline": f"{cpu['baseline']:.0f}",
            "verify": f"{cpu['verify'] / cpu['baseline']:.2f}",
            "seal": f"{cpu['seal'] / cpu['baseline']:.2f}",
            "prune": f"{cpu['prune']:.0f}",
            "export": f"{cpu['export']:.0f}",
            "reseal": f"{cpu['reseal']:.0f}",
            "peak": f"{max(peaks.values()) / 2**20:.0f}",
            "growth": f"{growth / 2**20:+.0f}",
            "least": f"{min(sizes):,}",
        }
    )


_LONG_WORK = """\
- **Long work**{measured}: with {rows} rows, reading the audit log and computing one HMAC per row takes
  {baseline} µs of CPU per row. `verify` takes {verify} times as long, and `seal` {seal} times. `prune` takes
  {prune} µs per row, `export` {export} µs and `reseal` {reseal} µs. No command uses more than {peak} MiB of memory.
  The memory of `verify` changes by {growth} MiB compared with {least} rows.
"""


def _revocation(revocation: Mapping[str, Any]) -> str:
    """Return a Markdown summary of the time that revocations take."""
    cpu, user = revocation["one more revocation, ms of CPU"], revocation["all tokens of a user"]
    return _REVOCATION.format_map(
        {
            "listed": f"{revocation['listed tokens']:,}",
            "issuer": f"{cpu['issuer']['median']:.1f}",
            "database": f"{cpu['gateway, database']['median']:.1f}",
            "url": f"{cpu['gateway, URL']['median']:.1f}",
            "p95": f"{revocation['p95, ratio to an empty list']['median']:.2f}",
            "tokens": f"{user['tokens']:,}",
            "in_force": f"{user['in force, s']:.2f}",
            "ratio": f"{user['ratio to a plain UPDATE']:.1f}",
        }
    )


_REVOCATION = """\
- **Revocation**: with {listed} revoked tokens on the deny list, another revocation takes {issuer} ms of CPU time at
  the issuer, and {database} ms (database) or {url} ms (URL) at a gateway. The gateway's p95 is {p95} times the p95
  with an empty list. A revocation of {tokens} tokens of a user is in force after {in_force} s, and takes {ratio}
  times as long as a plain UPDATE.
"""


_MEANING = """\
Measured on {date} with {workers} gunicorn workers on {machine}. PostgreSQL, Redis and the load generator run on the
same cores. Versions: {versions}.

- **Tokens**: {tokens} per second and core on PostgreSQL, including the database's CPU time; {day} million per day. At
  Canvas's rate limit (one token every 20 seconds), {callers} clients can request tokens without a pause.
- **Audit log**: one row per token, of {row} bytes with all indexes: {million} GB per million tokens. With {most}
  rows, issuing takes {issue} times as long as with an empty table, and reading the deny list {deny} times as long.
- **Gateway**: {gateway} requests per second and core with cached tokens.
- **Memory and startup**: the memory of a worker changes by {memory} MiB over {issues} tokens. Starting a worker takes
  {start} ms more CPU time.
- **Servers**: compared with gunicorn's sync workers, gthread workers issue {gthread} times as many tokens per second,
  and uvicorn with a connection pool {uvicorn} times as many.
"""


def chart(results: Mapping[str, Any]) -> str:
    """Return the chart of all issuing endpoints as SVG. Bars show medians, and lines show ranges."""
    http = {vendor: {each["name"]: each for each in results["http"][vendor]["endpoints"]} for vendor in VENDORS}
    issuing = [each for each in next(iter(http.values())).values() if each["compared with"] == ISSUING]
    most = max(http[vendor][each["name"]]["ratio"]["high"] for vendor in VENDORS for each in issuing)
    scale = (WIDTH - LEFT - RIGHT) / most
    parts = [svg.text(LEFT, 20, "requests per second, relative to the do-nothing view", "start")]
    y = TOP
    for each in issuing:
        name, middle = each["name"], y + BAR
        weight = "bold" if name == "ours" else "normal"
        parts.append(svg.text(LEFT - 10, middle + 4, each["title"], "end", weight))
        for vendor in VENDORS:
            parts += _bar(http[vendor][name]["ratio"], scale, y, COLORS[vendor])
            y += BAR
        y += GAP
    one = LEFT + scale
    parts.insert(1, f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{TOP - 6}" y2="{y - GAP + 6}" stroke="#999"/>')
    x = LEFT
    for vendor, title in VENDORS.items():
        parts.append(f'<rect x="{x}" y="{y + 6}" width="12" height="12" fill="{COLORS[vendor]}"/>')
        parts.append(svg.text(x + 18, y + 16, title, "start"))
        x += 110
    height = y + FOOT - GAP
    described = "; ".join(
        f"{each['title']}: "
        + ", ".join(f"{http[vendor][each['name']]['ratio']['median']:.2f} on {VENDORS[vendor]}" for vendor in VENDORS)
        for each in issuing
    )
    return svg.document(
        parts,
        title="Issuing over HTTP, compared with alternatives",
        description=described,
        width=WIDTH,
        height=height,
    )


def _bar(ratio: Mapping[str, float], scale: float, y: int, color: str) -> Sequence[str]:
    low, high = LEFT + ratio["low"] * scale, LEFT + ratio["high"] * scale
    middle = y + BAR / 2
    return (
        f'<rect x="{LEFT}" y="{y}" width="{ratio["median"] * scale:.1f}" height="{BAR - 1}" fill="{color}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="currentColor"/>',
        svg.text(high + 6, middle + 4, f"{ratio['median']:.2f}", "start"),
    )


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table and the summary as Markdown for docs/speed.md."""
    return f"{table(results)}\n{meaning(results)}"


def write(results: Mapping[str, Any]) -> None:
    """Write the charts, the table in docs/speed.md and the table in docs/proxies.md."""
    report_nginx.write(results)
    CHART.write_text(chart(results))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + markdown(results) + END + rest.partition(END)[2])


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
