"""The URLs for monitoring a service: `path("", include("instaccess.service.urls"))`."""

from ..monitoring import monitoring_urls

urlpatterns = monitoring_urls("service")
