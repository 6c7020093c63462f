"""Real client libraries of Canvas, each in a separate process.

`make test-services` installs the clients. Each version of canvasapi has its own folder.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import servers
from tests.support.paths import ROOT

FOLDER = Path(sys.prefix) / "clients"

_PROGRAMS = ROOT / "tests/support/client_programs"
_CANVASAPI = [sys.executable, "-P", "-W", "ignore", str(_PROGRAMS / "call_canvasapi.py")]
_KTH = ["node", str(_PROGRAMS / "call_kth_canvas_api.js")]

CLIENTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "canvasapi 2.2": (_CANVASAPI, {"PYTHONPATH": str(FOLDER / "canvasapi-2.2")}),
    "canvasapi 3.4": (_CANVASAPI, {"PYTHONPATH": str(FOLDER / "canvasapi-3.4")}),
    "canvasapi 3.6": (_CANVASAPI, {"PYTHONPATH": str(FOLDER / "canvasapi-3.6")}),
    "@kth/canvas-api 5.1": (_KTH, {"NODE_PATH": str(FOLDER / "node/node_modules")}),
}
"""The command and the environment variables of each client."""


@dataclass(frozen=True)
class Outcome:
    """The result of a call by a client of Canvas.

    Attributes:
        returned: the return value of the client.
        raised: the name of the exception, or an empty string if the client raised no exception.
        content: the content of the exception: its message, or the status and the body of the response.
    """

    returned: Any = None
    raised: str = ""
    content: Any = None


class Client:
    """A client of Canvas in its own process, which makes one call at a time."""

    def __init__(self, name: str, log: Path) -> None:
        self.name, self._log = name, log
        self._popen: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return self.name

    def begin(
        self,
        *,
        base_url: str,
        token: str | None,
        method: str,
        endpoint: str,
        params: dict[str, Any] | None = None,
        json_body: Any = None,
    ) -> None:
        """Start a call to `/api/v1/<endpoint>`.

        Args:
            token: the bearer token. If None, a client that can omit the Authorization header omits the header.
            params: the parameters, which the client sends in the query or in a form.
            json_body: the body, which is sent as JSON. Only @kth/canvas-api can send such a body.
        """
        call = {"base_url": base_url, "token": token, "method": method, "endpoint": endpoint, "params": params or {}}
        if json_body is not None:
            call["json_body"] = json_body
        if self._popen is None:
            command, variables = CLIENTS[self.name]
            with self._log.open("ab") as log:
                self._popen = subprocess.Popen(
                    command, env=os.environ | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
                )
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(call).encode() + b"\n")
        self._popen.stdin.flush()

    def has_ended(self, timeout: float = 0) -> bool:
        """Wait for at most `timeout` seconds. Returns whether the call has ended."""
        assert self._popen is not None
        return bool(select.select([self._popen.stdout], [], [], timeout)[0])

    def outcome(self) -> Outcome:
        """Wait for the end of the call. Returns the result. Raises TimeoutError after PATIENCE seconds."""
        if not self.has_ended(servers.PATIENCE):
            raise TimeoutError(f"{self} did not end the call")
        assert self._popen is not None
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, f"{self} ended. Is it installed (`make .venv/.clients`)? Its log:\n{self._log.read_text()}"
        return Outcome(**json.loads(line))

    def call(self, **call: Any) -> Outcome:
        self.begin(**call)
        return self.outcome()

    def kill(self) -> None:
        """Kill the process of the client, even during a call. The next call starts a new process."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.communicate()
            self._popen = None
