"""A fixture that runs each test of the issuer with the fixed SQL statements and with Django's queries."""

from __future__ import annotations

import pytest

from instaccess.audit import recording
from instaccess.issuer import access_tokens


@pytest.fixture(params=["fixed_sql", "orm"], autouse=True)
def statements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test twice: with the fixed SQL statements, and with Django's queries."""
    if request.param == "orm":
        monkeypatch.setattr(access_tokens, "_statement", lambda *args: None)
        monkeypatch.setattr(recording, "_statement", lambda *args: None)
    return str(request.param)
