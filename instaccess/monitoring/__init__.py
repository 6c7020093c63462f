"""Health: what load balancers and monitoring systems read about a process. This package imports no models."""

from .findings import Finding, Status
from .probes import add_check
from .views import health_urls

__all__ = ["Finding", "Status", "add_check", "health_urls"]
