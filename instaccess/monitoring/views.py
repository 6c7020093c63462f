"""The endpoints `/internal/health/live`, `/internal/health/ready` and `/internal/metrics` (docs/monitoring.md)."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse

from .. import web
from ..exceptions import Reason
from . import prometheus, readiness  # noqa: F401  (adds the checks of gateways and services)
from .probes import run_checks

_ROLES = ("issuer", "gateway", "service")
_METHODS = ("GET", "HEAD")


def live_view(request: HttpRequest) -> HttpResponse:
    """Answer 200, to show that the process answers requests. Nothing is checked."""
    return _method_not_allowed() if request.method not in _METHODS else _answer({"status": "live"}, status=200)


def ready_view(request: HttpRequest, role: str) -> HttpResponse:
    """Answer 200 if every role of this process can answer requests, otherwise 503. The JSON names the problems.

    A process has the roles whose URLs the project includes. The query parameter `role` selects one of these roles. If
    the process doesn't have the selected role, the response is 404.

    Args:
        role: the role to whose URLs the requested URL belongs. The query parameter doesn't change this argument.
    """
    if request.method not in _METHODS:
        return _method_not_allowed()
    roles = _included_roles(role)
    if (wanted := request.GET.get("role")) is not None:
        if wanted not in roles:
            return _answer({"status": "unknown role", "roles": roles}, status=404)
        roles = [wanted]
    findings, ready = run_checks(roles)
    all_ready = all(ready.values())
    body = {
        "status": _status(all_ready),
        "roles": {name: _status(is_ready) for name, is_ready in ready.items()},
        "checks": {name: finding.to_json() for name, finding in findings.items()},
    }
    return _answer(body, status=200 if all_ready else 503)


def metrics_view(request: HttpRequest, role: str) -> HttpResponse:
    """Return the metrics of every role of this process in the text format of Prometheus.

    The response is 404 if `prometheus_client` is not installed, and 503 if PROMETHEUS_MULTIPROC_DIR can't be read.

    Args:
        role: the role to whose URLs the requested URL belongs.
    """
    if request.method not in _METHODS:
        return _method_not_allowed()
    if prometheus.recorder is None:
        return _answer({"status": "install django-instaccess[metrics] to get metrics"}, status=404)
    try:
        body, content_type = prometheus.render(_included_roles(role))
    except (OSError, ValueError) as error:
        detail = f"PROMETHEUS_MULTIPROC_DIR must name a folder that the process can read ({type(error).__name__})"
        return _answer({"status": detail}, status=503)
    response = HttpResponse(body, content_type=content_type)
    response["Cache-Control"] = "no-store"
    return response


def monitoring_urls(role: str) -> list[URLPattern]:
    """Return the URL patterns of the endpoints for monitoring. The `urls.py` of each role includes these patterns."""
    return [
        path("internal/health/live", live, name=f"instaccess-live-{role}"),
        path("internal/health/ready", ready, {"role": role}, name=f"instaccess-ready-{role}"),
        path("internal/metrics", metrics, {"role": role}, name=f"instaccess-metrics-{role}"),
    ]


def _included_roles(requested: str) -> list[str]:
    """Return the roles whose URLs this project includes.

    Args:
        requested: the role to whose URLs the requested URL belongs.
    """
    return [role for role in _ROLES if role == requested or _is_included(role)]


def _is_included(role: str) -> bool:
    # Look up the URL by its name, because the endpoints of all roles have the same path.
    try:
        reverse(f"instaccess-ready-{role}")
    except NoReverseMatch:
        return False
    return True


def _status(is_ready: bool) -> str:
    return "ready" if is_ready else "not ready"


def _method_not_allowed() -> HttpResponse:
    response = web.MethodNotAllowed(code=Reason.METHOD).to_response()
    response["Allow"] = ", ".join(_METHODS)
    response["Cache-Control"] = "no-store"
    return response


def _answer(body: dict[str, Any], *, status: int) -> HttpResponse:
    response = web.json_response(body, status=status)
    response["Cache-Control"] = "no-store"
    # Django logs each response with a status of 400 or more, unless a view has marked the response as logged. Without
    # this mark, an outage would add a log line per probe.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


live = web.isolated_view(live_view)
ready = web.isolated_view(ready_view)
metrics = web.isolated_view(metrics_view)
