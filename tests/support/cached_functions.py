"""A function that clears the caches of all functions of the package that cache their results."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def clear() -> None:
    """Discard all cached results, so that no test uses the results of earlier tests."""
    for function in set(_cached_functions()):
        function.cache_clear()


def _cached_functions() -> Iterator[Any]:
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "instaccess"]
    for module in modules:
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear"):
                yield value
            elif isinstance(value, type):
                yield from (member for member in vars(value).values() if hasattr(member, "cache_clear"))
