"""What the benchmarks have in common as commands: options, a table, a file, and how busy the machine was."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

STOPPED = 130
"""Exit status of what Ctrl-C ended, as shells have it."""


def stop_tidily() -> None:
    """Let SIGINT and SIGTERM end this process so that neither servers nor databases are left behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    # Once: a second one would interrupt the tidying. Not SIG_IGN: of a second one that has come already, Python would
    # print that it is "ignored due to race condition".
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _go_on)
    raise SystemExit(STOPPED)


def _go_on(number: int, frame: FrameType | None) -> None:
    pass


def main(
    doc: str | None,
    arguments: Callable[[argparse.ArgumentParser], None],
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    show: Callable[[dict[str, Any]], str],
) -> None:
    """Runs one benchmark, prints its table and, with `--output`, writes its figures as JSON."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--output", type=Path, help="a file for the figures")
    options = parser.parse_args()
    stop_tidily()
    before = os.getloadavg()[0]
    result = measure(options)
    print(show(result), flush=True)
    if options.output:
        result["load average before"] = round(before, 2)
        options.output.write_text(json.dumps(result))
