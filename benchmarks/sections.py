"""The command line that all benchmarks share, with the option `--output`."""

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
"""The exit status of a benchmark after SIGINT or SIGTERM. Shells use this status after SIGINT."""


def exit_on_signals() -> None:
    """Raise SystemExit on SIGINT and SIGTERM. A benchmark then stops its servers and drops its databases."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    # Ignore further signals, because a second signal must not interrupt the cleanup. Don't use SIG_IGN, because
    # Python would report a signal that has already arrived as "ignored due to race condition".
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _ignore)
    raise SystemExit(STOPPED)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def main(
    doc: str | None,
    arguments: Callable[[argparse.ArgumentParser], None],
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    show: Callable[[dict[str, Any]], str],
) -> None:
    """Run a benchmark from the command line and print its table. With `--output`, also write the figures as JSON."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--output", type=Path, help="write the figures to this file, as JSON")
    options = parser.parse_args()
    exit_on_signals()
    before = os.getloadavg()[0]
    result = measure(options)
    print(show(result), flush=True)
    if options.output:
        result["load average before"] = round(before, 2)
        options.output.write_text(json.dumps(result))
