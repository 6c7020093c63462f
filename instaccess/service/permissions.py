"""Conditions for the claims of a token. The integrations for Django, django-ninja and Starlette accept conditions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from inspect import iscoroutinefunction
from typing import Any

from ..tokens import Claims

Condition = Callable[[Any], bool]
"""A function that gets the claims of a valid token, and returns whether the request is allowed."""


def not_masquerading(claims: Claims) -> bool:
    """Return False if a real user, who masquerades as the subject, requested the token. Otherwise, return True."""
    return claims.masquerading_user_uuid is None


def is_service_user(claims: Claims) -> bool:
    """Return whether an application requested the token for itself, without a user who signed in."""
    return claims.instructure_service


def from_application(*client_ids: str) -> Condition:
    """Return a condition that allows the tokens of OAuth2 applications with these client ids.

    Raises ValueError if there is no client id, or if a client id is empty or not a string.
    """
    if not client_ids or not all(isinstance(client_id, str) and client_id for client_id in client_ids):
        raise ValueError('from_application needs one or more client ids as strings, such as from_application("lms")')
    return lambda claims: claims.client_id in client_ids


def is_allowed(claims: Claims, conditions: Collection[Condition]) -> bool:
    """Return whether the claims fulfill all conditions."""
    # Only the value True allows a request. An asynchronous function, for example, returns a coroutine, which is
    # always truthy.
    return all(condition(claims) is True for condition in conditions)


def check_conditions(conditions: Any) -> tuple[Condition, ...]:
    """Return the conditions as a tuple. Raises TypeError if the value isn't a collection of functions."""
    if isinstance(conditions, (str, bytes)) or not isinstance(conditions, Collection):
        raise TypeError("allow must be a list of conditions, such as allow=[not_masquerading]")
    if any(not callable(condition) or iscoroutinefunction(condition) for condition in conditions):
        raise TypeError(
            "each condition in allow must be a function that gets the claims and returns True or False; "
            "asynchronous functions are not accepted"
        )
    return tuple(conditions)
