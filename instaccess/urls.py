"""Every role's urls: `path("", include("instaccess.urls"))`. A deployment that plays one role includes that one's."""

from .gateway import urls as gateway_urls
from .issuer import urls as issuer_urls
from .issuer import urls_internal

# Side by side, for Django takes its time over every `include` that a request's path is not in; and what is asked with
# every request that a proxy forwards comes first.
urlpatterns = [*gateway_urls.urlpatterns, *issuer_urls.urlpatterns, *urls_internal.urlpatterns]
