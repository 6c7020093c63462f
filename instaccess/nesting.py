"""How deep JSON may nest: one measure for what we issue and for what we read."""

from __future__ import annotations

import re

MAX_DEPTH = 32
"""Lists and objects in each other, in what we issue and in what we read."""

_TEXT, _BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL), re.compile(r"[\[\]{}]")


def nests_too_deep(text: str) -> bool:
    """Whether brackets stand in each other more than `MAX_DEPTH` deep, in JSON or what passes for it.

    Asked of what comes in before it is parsed: how deep parsers go depends on the version of Python, and that of 3.13
    takes the whole process down where a thread's stack is small.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_TEXT.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False
