"""Health and metrics, for load balancers and monitoring systems. This package imports no models."""

from .findings import Finding, Status
from .probes import add_check
from .sources import Sample, add_source
from .views import monitoring_urls

__all__ = ["Finding", "Sample", "Status", "add_check", "add_source", "monitoring_urls"]
