"""Opaque objects for secrets: error reports, logs and pages can't print them by accident."""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")


class Opaque(Generic[T]):
    """A secret whose `repr`, `str` and formatted text are fixed. Only `reveal` returns the secret.

    Error reporters print the local variables of every function that an exception passes. An opaque object may be such
    a variable; the revealed secret must not be one. Therefore, call `reveal` only in an argument of the function that
    needs the secret, and never while a query runs.

    The object is not a mapping, a sequence or a dataclass, because error reporters print the members of these. A copy
    is the object itself, and the object can't be pickled.
    """

    # The name is mangled, so that a tool that reads attributes by their usual names doesn't find the secret.
    __slots__ = ("__secret",)

    DESCRIPTION = "secret"

    def __init__(self, secret: T) -> None:
        self.__secret = secret

    def reveal(self) -> T:
        """Return the secret."""
        return self.__secret

    def __repr__(self) -> str:
        return f"<{self.DESCRIPTION}>"

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __copy__(self) -> Opaque[T]:
        return self

    def __deepcopy__(self, memo: Any) -> Opaque[T]:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"a {self.DESCRIPTION} can't be pickled")

    def __getstate__(self) -> NoReturn:
        # Python's own method returns the values of all slots.
        raise TypeError(f"a {self.DESCRIPTION} can't be pickled")
