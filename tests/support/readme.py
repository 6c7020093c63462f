"""The README, in the pieces that the tests hold it to."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.support.paths import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"(?<!\\)\|")


class Snippet(NamedTuple):
    """A fenced block: its language and what is in it."""

    language: str
    code: str

    @property
    def lines(self) -> list[str]:
        return self.code.splitlines()


def section(title: str) -> str:
    """What stands below a heading of the second level, up to the next."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None, f"the README has no section {title!r}"
    return match[1]


def snippets(text: str = TEXT) -> list[Snippet]:
    return [Snippet(*match) for match in _FENCE.findall(text)]


def tables(text: str) -> list[list[list[str]]]:
    """Every table as rows of cells, without its heading."""
    found: list[list[list[str]]] = []
    previous = ""
    for line in text.splitlines():
        if line.startswith("|"):
            if not previous.startswith("|"):
                found.append([])
            found[-1].append([cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]])
        previous = line
    return [rows[2:] for rows in found]


def code(cell: str) -> list[str]:
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)
