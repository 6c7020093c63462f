"""An app without models."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class StandaloneConfig(AppConfig):
    name = "instaccess.standalone"
    label = "instaccess_standalone"
    verbose_name = _("InstAccess")

    def ready(self) -> None:
        from ..conf import checks as conf_checks  # noqa: F401, PLC0415  (registers them)
        from ..trust import checks as trust_checks  # noqa: F401, PLC0415
