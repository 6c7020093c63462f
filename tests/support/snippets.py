"""Functions that run the code and the commands of the documentation."""

from __future__ import annotations

import shlex
from typing import Any
from urllib.parse import urlsplit

from django.test import Client

from tests.support import readme


def code_of(page: str, text: str) -> str:
    """Return the Python snippet of a page that contains `text`. Exactly one snippet must contain `text`."""
    [code] = [each.code for each in readme.snippets(page) if each.language == "python" and text in each.code]
    return code


def shell_lines(page: str) -> list[str]:
    return [line for each in readme.snippets(page) if each.language == "sh" for line in each.lines]


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run a snippet with the given names as global variables. Returns all its global variables."""
    exec(code, names)
    return names


def send(client: Client, command: str, **variables: str) -> Any:
    """Send the request of a documented curl command, with these values for its shell variables."""
    for name, value in variables.items():
        command = command.replace(f"${name}", value)
    assert "$" not in command
    words = shlex.split(command)
    url = urlsplit(words[-1])
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    header, value = words[words.index("-H") + 1].split(": ")
    return client.generic(method, f"{url.path}?{url.query}", headers={header: value}, HTTP_HOST=url.hostname or "")
