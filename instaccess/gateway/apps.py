"""The app for a gateway without the issuer's tables: `INSTALLED_APPS += ["instaccess.gateway"]`."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

# Importing these modules registers the system checks.
from ..conf import checks as conf_checks  # noqa: F401
from ..monitoring import checks as monitoring_checks  # noqa: F401
from ..trust import checks as trust_checks  # noqa: F401
from ..web import checks as web_checks  # noqa: F401


class GatewayConfig(AppConfig):
    name = "instaccess.gateway"
    label = "instaccess_gateway"
    verbose_name = _("InstAccess")
