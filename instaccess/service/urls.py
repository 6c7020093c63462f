"""The service's own URLs: `path("", include("instaccess.service.urls"))`. The service's API is the project's own."""

from ..monitoring import health_urls

urlpatterns = health_urls("service")
