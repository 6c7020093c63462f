"""gunicorn's configuration: keys are loaded and used before the first request, as the README advises."""

from __future__ import annotations

from typing import Any


def post_worker_init(worker: Any) -> None:
    """Before the worker's first request."""
    from instaccess.warmup import warm_up  # noqa: PLC0415  (gunicorn reads this before there is a project)

    warm_up()
