"""The Django app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class InstAccessConfig(AppConfig):
    name = "instaccess"
    verbose_name = _("InstAccess")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # The first three register the system checks, once the models are there.
        from . import web  # noqa: PLC0415
        from .conf import checks as conf_checks  # noqa: F401, PLC0415
        from .issuer import checks as issuer_checks  # noqa: F401, PLC0415
        from .keys import checks as keys_checks  # noqa: F401, PLC0415
        from .trust import checks as trust_checks  # noqa: F401, PLC0415

        web.start()
