"""Fixtures for the tests of the key pages: a stopped clock, and an operator who may manage keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from instaccess.issuer import issuing
from instaccess.models import IssuedToken
from tests.admin.keys.helpers import START


@pytest.fixture
def clock() -> Any:
    """Stop the clock at `START`. Yields an object that moves the clock."""
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def make_operator(db: None) -> Callable[..., Any]:
    """Return a function that creates a staff user with the given permissions."""

    def make(*permissions: str) -> Any:
        operator = get_user_model().objects.create_user("grace", password="correct horse", is_staff=True)
        operator.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        return operator

    return make


@pytest.fixture
def operator(make_operator: Callable[..., Any]) -> Any:
    """Return a staff user who may only view and manage keys."""
    return make_operator("view_key", "manage_keys")


@pytest.fixture
def operator_client(client: Any, operator: Any) -> Any:
    client.force_login(operator)
    return client


@pytest.fixture
def issue(user: Any) -> Callable[[], IssuedToken]:
    return lambda: issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())[0]
