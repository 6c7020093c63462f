"""The configuration of gunicorn, which loads the keys before the first request as docs/speed.md advises."""

from __future__ import annotations

from typing import Any


def post_worker_init(worker: Any) -> None:
    """Load and use the keys before the first request of the worker."""
    from instaccess.warmup import warm_up  # noqa: PLC0415  (gunicorn reads this file before Django is set up.)

    warm_up()
