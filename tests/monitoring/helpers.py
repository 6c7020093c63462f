"""A function that sends a probe, and a function that selects the problems from the response."""

from __future__ import annotations

from typing import Any

from django.test import Client

LIVE, READY = "/internal/health/live", "/internal/health/ready"
ALL = "instaccess.urls"
ISSUER, GATEWAY, SERVICE = "instaccess.issuer.urls_internal", "instaccess.gateway.urls", "instaccess.service.urls"


def probe(role: str | None = None) -> tuple[int, dict[str, Any]]:
    """Send a probe of the readiness of this process. Returns the status and the JSON of the response."""
    response = Client().get(READY, {} if role is None else {"role": role})
    return response.status_code, response.json()


def problems(body: dict[str, Any]) -> dict[str, str]:
    """Return the name and the status of each check with a status other than `ok`."""
    return {name: check["status"] for name, check in body["checks"].items() if check["status"] != "ok"}
