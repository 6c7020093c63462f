"""A command that reads the log lines of the package from the source code.

python -m tests.support.log_lines

Writes the table of docs/log-lines.md again. Run the command after you add or change a log line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import instaccess
from tests.support.paths import ROOT

PACKAGE = Path(instaccess.__file__).parent
PAGE = ROOT / "docs" / "log-lines.md"
HEADER = "| Logger | Level | Text | Fields |\n|---|---|---|---|\n"

_LEVELS = {"debug", "info", "warning", "error", "log", "exception", "critical"}
_PLACEHOLDER = re.compile(r"%\((\w+)\)[a-z]")
_FIELDS_OF_A_FAULT = {"error", "reason", "detail"}


class Line:
    """A call that logs a line: a method of a logger, or `Fault.of`, whose result is logged later."""

    def __init__(self, module: Module, call: ast.Call) -> None:
        self.module, self.call = module, call
        self.method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        self.texts = [argument for argument in call.args if isinstance(argument, (ast.Constant, ast.JoinedStr))]
        self.names = {keyword.arg for keyword in call.keywords} - {"stacklevel"}

    def __str__(self) -> str:
        return f"{self.module.path.relative_to(PACKAGE)}:{self.call.lineno}"

    @property
    def placeholders(self) -> set[str]:
        return set(re.findall(r"%\((\w+)\)", "".join(text.value for text in self.texts)))

    @property
    def is_fault(self) -> bool:
        return self.method == "of"

    @property
    def row(self) -> tuple[str, str, str, str]:
        """The logger, the level, the text with `…` for each value, and the names of the fields."""
        [text, *_] = [text for argument in self.call.args if (text := self.module.text(argument))]
        if self.is_fault:
            level, names, text = self.module.level(self.call), _FIELDS_OF_A_FAULT, f"{text}: %(detail)s"
        else:
            level, names = self.method.upper(), {str(name) for name in self.names}
        level = "level of the error" if level == "LOG" else level
        fields = ", ".join(f"`{name}`" for name in sorted(names))
        text = _PLACEHOLDER.sub("…", text).replace("|", "\\|").replace("`", "")
        return self.module.logger(self.call), level, f"`{text}`", fields


class Module:
    """A module of the package, with the values of its constants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tree = ast.parse(path.read_text(encoding="utf-8"))
        self._constants = {
            target.id: node.value
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def lines(self) -> Iterator[Line]:
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            method, owner = node.func.attr, _name(node.func.value)
            if (method in _LEVELS and owner.endswith("logger")) or (method, owner) == ("of", "Fault"):
                yield Line(self, node)

    def text(self, node: ast.expr) -> str:
        """Return the text of a string, an f-string or a constant. `…` replaces each value that isn't a constant.

        Returns an empty string for every other expression.
        """
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.FormattedValue):
            return self.text(node.value) or "…"
        if isinstance(node, ast.JoinedStr):
            return "".join(self.text(value) for value in node.values)
        if isinstance(node, ast.Name) and node.id in self._constants:
            return self.text(self._constants[node.id])
        return ""

    def logger(self, call: ast.Call) -> str:
        """Return, as Markdown, the name of the first logger that the module uses in the call or after the call.

        Returns "logger of the error" if the name of the logger isn't a constant.
        """
        after = (
            (node.lineno, node.id)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Name) and node.id.endswith("logger") and node.lineno >= call.lineno
        )
        made = self._constants.get(min(after, default=(0, ""))[1])
        if isinstance(made, ast.Call) and isinstance(made.args[0], ast.Constant):
            return f"`{made.args[0].value}`"
        return "logger of the error"

    def level(self, fault: ast.Call) -> str:
        """Return the level at which the module logs a fault. `Fault.log` uses ERROR by default."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.value is fault:
                return next((_name(each.value) for each in node.keywords if each.arg == "level"), "ERROR")
        return "ERROR"


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


LINES = [line for path in sorted(PACKAGE.rglob("*.py")) if path.name != "logs.py" for line in Module(path).lines()]
CALLS = [line for line in LINES if not line.is_fault]
"""The calls that log a line immediately. Calls of `Fault.of` are excluded, because a fault is logged later."""


def table() -> str:
    """Return the table of all log lines as Markdown.

    A call without a literal text is left out: such a call logs a fault, and the call of `Fault.of` has a row.
    """
    rows = sorted({line.row for line in LINES if line.texts or line.is_fault})
    return HEADER + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, after = text.partition(HEADER)
    rest = after.partition("\n\n")[2]
    PAGE.write_text(before + table() + (f"\n{rest}" if rest else ""), encoding="utf-8")


if __name__ == "__main__":
    main()
