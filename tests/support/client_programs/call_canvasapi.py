"""A program that calls the client library canvasapi and imports no code of this project.

The program reads one call per line from standard input, as JSON. For each call, it writes one line to standard
output: the result of the client, or the name and the content of the exception.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from canvasapi import Canvas


def call(*, base_url: str, token: str | None, method: str, endpoint: str, params: dict[str, Any]) -> Any:
    """Call an endpoint of the server at `base_url` with canvasapi, and return the result.

    If `token` is None, canvasapi sends no Authorization header.
    """
    canvas = Canvas(base_url, token or "")
    if (method, endpoint) == ("GET", "users/self"):
        user = canvas.get_current_user()
        return {name: value for name, value in vars(user).items() if isinstance(value, str | int)}
    # Use the internal requester, as extensions of canvasapi do, because canvasapi has no method for InstAccess
    # tokens.
    requester: Any = vars(canvas)["_Canvas__requester"]
    return requester.request(method, endpoint, use_auth=token is not None, **params).json()


for line in sys.stdin:
    try:
        result = {"returned": call(**json.loads(line))}
    except Exception as error:
        result = {"raised": type(error).__name__, "content": getattr(error, "message", str(error))}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
