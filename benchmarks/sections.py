"""What the benchmarks have in common as commands: options, a table, a file, and how busy the machine was."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
    # Either ends it tidily: servers and databases are left behind by none.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    before = os.getloadavg()[0]
    result = measure(options)
    print(show(result), flush=True)
    if options.output:
        result["load average before"] = round(before, 2)
        options.output.write_text(json.dumps(result))
