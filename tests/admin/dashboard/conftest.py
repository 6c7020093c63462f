"""Fixtures for the tests of the dashboard: a function that signs in a user with some permissions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission


@pytest.fixture
def sign_in(client: Any, db: None) -> Callable[..., Any]:
    """Return a function that signs in a staff user with the given permissions, and returns the client."""

    def sign_in(*permissions: str) -> Any:
        staff = get_user_model().objects.create_user("grace", password="correct horse", is_staff=True)
        staff.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(staff)
        return client

    return sign_in
