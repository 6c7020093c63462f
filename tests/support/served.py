"""The WSGI application of the test project, with the worker's process id in the header X-Worker of each response."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from testproject.wsgi import application as _application


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
        return start_response(status, [*headers, ("X-Worker", str(os.getpid()))], *args)

    return _application(environ, start)
