"""Detection of middleware that opens a transaction around the views of this app.

The audit row of a token must be committed before the token is returned. In an open transaction, a later error could
roll back the row, so the issuer answers 503. This module parses the source code of the middleware without running it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

_OPENING = {"atomic", "create_revision"}
"""The names of functions in Django and django-reversion that open a transaction."""

_VIEWS = {"get_response", "view_func", "__call__"}
"""The names by which a middleware calls the next middleware, the view, or the `__call__` of its base class."""


def find_transactions() -> list[str]:
    """Return the entries of MIDDLEWARE that open a transaction around the views."""
    found = []
    for path in settings.MIDDLEWARE:
        try:
            middleware = import_string(path)
        except ImportError:
            continue  # Django itself reports this entry, because Django can't load it.
        if _opens_transaction(middleware):
            found.append(path)
    return found


def _opens_transaction(middleware: Any) -> bool:
    bases: tuple[Any, ...] = inspect.getmro(middleware) if isinstance(middleware, type) else (middleware,)
    for base in bases:
        if base.__module__ == "reversion.middleware":
            # RevisionMiddleware opens a transaction only if `request_creates_revision` returns True. This check can't
            # predict the result of an overridden method, so assume that the method returns False for this app.
            chooses = middleware.request_creates_revision is not base.request_creates_revision
            return bool(middleware.atomic) and not chooses
    return any(_wraps_views(base) for base in bases if not base.__module__.startswith("django."))


def _wraps_views(middleware: Any) -> bool:
    """Return whether the source code of a middleware calls the next middleware or the view inside a transaction."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(middleware)))
    except (OSError, TypeError, SyntaxError):
        return False  # If the source code is unavailable, this function can't find a transaction.
    # For a class that `exec` created, `inspect` of Python 3.13 returns other lines of the file instead of an error.
    if isinstance(middleware, type) and not all(isinstance(statement, ast.ClassDef) for statement in tree.body):
        return False
    for node in ast.walk(tree):
        opening: Iterable[ast.AST]
        inside: Iterable[ast.AST]
        match node:
            case ast.With(items=opening, body=inside) | ast.AsyncWith(items=opening, body=inside):
                pass
            case ast.FunctionDef(decorator_list=opening, body=inside):
                pass
            case ast.Call(func=called, args=inside):  # This case matches `transaction.atomic(get_response)`.
                opening = [called]
            case _:
                continue
        if _names(opening, _OPENING) and _names(inside, _VIEWS):
            return True
    return False


def _names(nodes: Iterable[ast.AST], names: set[str]) -> bool:
    """Return whether the syntax trees contain a variable or an attribute with one of the names."""
    return any(
        getattr(part, "id", None) in names or getattr(part, "attr", None) in names
        for node in nodes
        for part in ast.walk(node)
    )
