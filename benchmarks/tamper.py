"""A benchmark of tamper evidence: `issuer.issue` with an HMAC per audit row, and with constants instead of HMACs.

python -m benchmarks.tamper --database postgresql [--tamper-rounds 400]
"""

# ruff: noqa: PLC0415  (Functions contain imports, because Django is set up after the database is created.)
from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from . import sections, timing
from .stage import VENDORS, stage

CALLS = 5
WITH, WITHOUT = "with the HMAC", "without"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--database", choices=VENDORS, default="sqlite")
    parser.add_argument(
        "--tamper-rounds", type=int, default=400, help=f"rounds of {CALLS} issued tokens (default: 400)"
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with stage(options.database):
        from oauth2_provider.models import get_access_token_model

        from instaccess.issuer import issuing

        tokens = itertools.cycle(
            get_access_token_model().objects.select_related("user__instaccess_identity", "application")
        )
        origin = issuing.Origin(
            canvas_domain="canvas.example.edu", ip_address="192.0.2.7", user_agent="benchmark/1.0"
        )

        def issue() -> Any:
            token = next(tokens)
            return issuing.issue(
                user=token.user,
                application=token.application,
                access_token_pk=token.pk,
                origin=origin,
                now=time.time(),
            )[0]

        def with_hmac() -> None:
            for _ in range(CALLS):
                issue()

        def without() -> None:
            with no_hmac():
                for _ in range(CALLS):
                    issue()

        assert issue().mac != CONSTANT
        with no_hmac():
            assert issue().mac == CONSTANT
        variants = {WITH: with_hmac, WITHOUT: without}
        wall = timing.in_turns(variants, rounds=options.tamper_rounds)
        cpu = timing.in_turns(variants, rounds=options.tamper_rounds, clock=time.process_time)
    each = {name: [value / CALLS * 1000 for value in values] for name, values in wall.items()}
    added = [(more - less) / CALLS * 1e6 for more, less in zip(cpu[WITH], cpu[WITHOUT], strict=True)]
    return {
        "database": options.database,
        "milliseconds": {name: timing.spread(values) for name, values in each.items()},
        "ratio": timing.ratios(each[WITH], each[WITHOUT]),
        # Report the CPU time, which varies less than the wall-clock time and is complete, because computing an HMAC
        # never waits.
        "added CPU, microseconds": timing.spread(added, 1),
        "share of an issue": round(statistics.median(added) / 1000 / statistics.median(each[WITHOUT]), 4),
    }


CONSTANT = "constant"


@contextmanager
def no_hmac() -> Iterator[None]:
    """Replace the canonical encoding of audit rows and their HMACs with constants."""
    from instaccess import audit
    from instaccess.audit import names, row_hmac

    with (
        patch.object(row_hmac, "canonical_bytes", lambda token: b""),
        patch.object(row_hmac, "authenticate", lambda data, keks: CONSTANT),
        patch.object(names, "canonical_bytes", lambda token: b""),
        patch.object(audit, "canonical_bytes", lambda token: b""),
        patch.object(audit, "authenticate", lambda data, keks: CONSTANT),
    ):
        yield


def show(result: dict[str, Any]) -> str:
    rows = [[name, timing.ranged(values, 3), ""] for name, values in result["milliseconds"].items()]
    rows[0][2] = timing.ranged(result["ratio"], 3)
    title = (
        f"Tamper evidence, issuing in process on {result['database']}: "
        f"{result['added CPU, microseconds']['median']:.0f} µs of CPU per token, "
        f"{result['share of an issue']:.1%} of issuing"
    )
    return timing.table(title, ["", "ms", "ratio to without"], rows)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
