"""The URLs of an issuer that is also a service."""

from tests.projects.described import issuer_urls, service_urls

urlpatterns = [*issuer_urls.urlpatterns, *service_urls.urlpatterns]
