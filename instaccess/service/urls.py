"""The service's own URLs: `path("", include("instaccess.service.urls"))`. The service's API is the project's own."""

from ..monitoring import monitoring_urls

urlpatterns = monitoring_urls("service")
