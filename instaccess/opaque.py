"""Secrets that error reports, logs and pages can't print by accident.

Error reporters print the local variables of every function that an exception passes. Two tools keep secrets out:

- An `Opaque` object contains a secret. Functions pass secrets to each other as opaque objects, so an error reporter
  may print the variables of these functions.
- `concealed` decorates a function whose variables contain a revealed secret. The exceptions that the function raises
  don't refer to these variables.
"""

from __future__ import annotations

import functools
import hmac
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from .exceptions import InstAccessError, UnexpectedError

T = TypeVar("T")
P = ParamSpec("P")


class Opaque(Generic[T]):
    """An object that contains a secret. `repr`, `str` and `format` return a fixed text instead of the secret.

    Call `reveal` only in a function with the decorator `concealed`, or directly in the arguments of a call to such a
    function.

    The class is not a mapping, a sequence or a dataclass, because error reporters print the members of such objects.
    Copying an opaque object returns the same object. Opaque objects can't be pickled.
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
        # Python's default method returns the values of all slots, including the secret.
        raise TypeError(f"a {self.DESCRIPTION} can't be pickled")


class OpaqueText(Opaque[str]):
    """An opaque string. Two objects with equal strings are equal, so the objects can be the keys of a cache."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OpaqueText):
            return NotImplemented
        return hmac.compare_digest(self.reveal().encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash(self.reveal())


def concealed(function: Callable[P, T]) -> Callable[P, T]:
    """Hide the local variables of a function from error reporters. Decorate functions that handle revealed secrets.

    An exception that the decorated function raises doesn't refer to earlier exceptions, to frames of the function, or
    to frames of the functions that it calls. An error of this package is raised again, because its text contains no
    secret. Any other subclass of `Exception` becomes an UnexpectedError with the class and the location of the
    exception. The message of the exception is left out, because the message may contain the secret. Exceptions that
    aren't subclasses of `Exception`, such as SystemExit, are raised again.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        failure: BaseException
        try:
            return function(*args, **kwargs)
        except InstAccessError as error:
            failure = error
        except Exception as error:
            failure = UnexpectedError(_describe(error))
        except BaseException as error:  # For example, a server raises SystemExit to stop a worker.
            failure = error
        # Raise the exception after the `except` block. Within the block, Python would store the caught exception in
        # `__context__`, and the frames of the caught exception contain the secret.
        failure.__cause__ = failure.__context__ = None
        del args, kwargs
        try:
            raise failure.with_traceback(None)
        finally:
            # Delete the variable, because the exception and this frame refer to each other, and both would stay in
            # memory for too long.
            del failure

    return wrapper


def _describe(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} in {last.name} (line {last.lineno} of {Path(last.filename).name})"
