"""The app for a service without the issuer's tables: `INSTALLED_APPS += ["instaccess.service"]`."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

# Importing these modules registers the system checks.
from ..conf import checks as conf_checks  # noqa: F401
from ..monitoring import checks as monitoring_checks  # noqa: F401
from ..trust import checks as trust_checks  # noqa: F401
from ..web import checks as web_checks  # noqa: F401
from . import checks  # noqa: F401


class ServiceConfig(AppConfig):
    name = "instaccess.service"
    label = "instaccess_service"
    verbose_name = _("InstAccess")
