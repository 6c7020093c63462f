"""Functions that parse the README and the pages in `docs/` for the tests."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("examples/*/*.md"))]
GUIDES = (
    "admin.md",
    "audit-log.md",
    "checks.md",
    "commands.md",
    "compromised-key.md",
    "demo.md",
    "development.md",
    "gateway.md",
    "glossary.md",
    "http.md",
    "index.md",
    "installation.md",
    "keys.md",
    "logging.md",
    "migration.md",
    "operations.md",
    "reasons.md",
    "release.md",
    "revoke-tokens.md",
    "services.md",
    "settings.md",
    "speed.md",
    "stolen-laptop.md",
    "tamper-evidence.md",
    "threat-model.md",
    "why.md",
)
"""The pages in `docs/` whose commands, code and names `tests/test_docs.py` checks, together with the README."""

# Allow spaces before the fence, because a code block in a list item is indented.
_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"(?<!\\)\|")


class Snippet(NamedTuple):
    """A fenced code block: its language and its content."""

    language: str
    code: str

    @property
    def lines(self) -> list[str]:
        return self.code.splitlines()


def page(name: str) -> str:
    """Return the text of a page in `docs/`."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def guides() -> str:
    """Return the text of the README and of all pages in `GUIDES`."""
    return "\n".join([TEXT, *map(page, GUIDES)])


def section(title: str, text: str = TEXT) -> str:
    """Return the text between the second-level heading `title` and the next second-level heading."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None, f"there is no section {title!r}"
    return match[1]


def snippets(text: str = TEXT) -> list[Snippet]:
    """Return all fenced code blocks of a text."""
    return [Snippet(language, textwrap.dedent(code)) for _, language, code in _FENCE.findall(text)]


class Block(NamedTuple):
    """A code block of the tutorial. The comment before the block says what to do with the code.

    `action` is `run` (in the first terminal), `serve` (a server in another terminal; `target` is its port), `write`
    or `append` (`target` is the file).
    """

    action: str
    target: str
    code: str


def blocks(text: str) -> list[Block]:
    """Return all code blocks of a text that have a comment such as `<!-- block: write config/api.py -->`."""
    found = re.findall(r"^<!-- block: (\w+) ?(\S*) -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(*groups) for groups in found]


def tables(text: str) -> list[list[list[str]]]:
    """Return every table in a text as a list of rows of cells, without the header row."""
    result: list[list[list[str]]] = []
    previous = ""
    for line in text.splitlines():
        if line.startswith("|"):
            if not previous.startswith("|"):
                result.append([])
            result[-1].append([cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]])
        previous = line
    return [rows[2:] for rows in result]


def code(text: str) -> list[str]:
    """Return all inline code in a text, without the backticks."""
    return re.findall(r"`([^`]+)`", text)


def heading_anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub generates for the headings of a Markdown page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
