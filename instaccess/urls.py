"""The URLs of every role: `path("", include("instaccess.urls"))`.

A deployment with a single role includes that role's URLs, for example `instaccess.gateway.urls`.
"""

from .gateway import urls as gateway_urls
from .issuer import urls as issuer_urls
from .issuer import urls_internal
from .service import urls as service_urls

# The URLs are in one list, because Django resolves nested `include` calls more slowly. The gateway's URLs come first,
# because a proxy calls the gateway for every request that the proxy forwards.
urlpatterns = [
    *gateway_urls.urlpatterns,
    *issuer_urls.urlpatterns,
    *urls_internal.urlpatterns,
    *service_urls.urlpatterns,
]
