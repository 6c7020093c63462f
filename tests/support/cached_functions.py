"""A function that discards the cached results of all functions in the package."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any


def clear() -> None:
    """Discard all cached results, so that no test uses the results of earlier tests."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "instaccess":
            for function in _cached_functions(module):
                function.cache_clear()


# Cache the result, because searching a module takes time, and `clear` runs before each test.
@cache
def _cached_functions(module: ModuleType) -> set[Any]:
    """Return the functions of a module, and of the classes in the module, that cache their results."""
    values = list(vars(module).values())
    members = [member for value in values if isinstance(value, type) for member in vars(value).values()]
    return {value for value in [*values, *members] if hasattr(value, "cache_clear")}
