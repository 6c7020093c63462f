"""Every role's urls: `path("", include("instaccess.urls"))`. A deployment that plays one role includes that one's."""

from . import urls_gateway, urls_issuer, urls_services

# Side by side, for Django takes its time over every `include` that a request's path is not in; and what is asked with
# every request that a proxy forwards comes first.
urlpatterns = [*urls_gateway.urlpatterns, *urls_issuer.urlpatterns, *urls_services.urlpatterns]
