"""Functions that inspect a token, and functions that build claims, for the tests of the inspector."""

from __future__ import annotations

import time
from typing import Any

from instaccess.admin.inspector.verdict import Inspection, inspect
from instaccess.tokens import MAX_LIFETIME
from tests.support.tokens import claims


def inspect_text(text: str, **later: float) -> Inspection:
    return inspect(text, now=time.time() + later.get("seconds", 0))


def codes(inspection: Inspection) -> tuple[str, str]:
    return inspection.outcome.name, inspection.code


def good_claims(**changes: Any) -> dict[str, Any]:
    return claims(int(time.time()), **changes)


def times(ahead: int) -> dict[str, int]:
    now = int(time.time()) + ahead
    return {"iat": now, "exp": now + MAX_LIFETIME}
