"""The Django app of the issuer.

At startup, the app passes database functions to the packages that must not import models, and registers the system
checks.
"""

from itertools import chain

from django.apps import AppConfig
from django.db import router
from django.utils.translation import gettext_lazy as _

from . import monitoring, service, trust, warmup, web


class InstAccessConfig(AppConfig):
    name = "instaccess"
    verbose_name = _("InstAccess")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # These modules import the models. Django loads the models before it calls `ready`, but after it has imported
        # this file. Importing a checks module registers the module's system checks.
        from . import audit, keys, users  # noqa: PLC0415
        from .audit import checks as audit_checks  # noqa: F401, PLC0415
        from .audit import refusal_counts  # noqa: PLC0415
        from .conf import checks as conf_checks  # noqa: F401, PLC0415
        from .issuer import checks as issuer_checks  # noqa: F401, PLC0415
        from .issuer import throttling  # noqa: PLC0415
        from .issuer.oauth2_validator import is_usable_client  # noqa: PLC0415
        from .keys import checks as keys_checks  # noqa: F401, PLC0415
        from .monitoring import checks as monitoring_checks  # noqa: F401, PLC0415
        from .trust import checks as trust_checks  # noqa: F401, PLC0415

        audit_model = self.get_model("IssuedToken")
        trust.use_key_table(lambda max_staleness: keys.current_ring(max_staleness=max_staleness))
        trust.use_audit_table(lambda: router.db_for_write(audit_model))
        service.use(find_user=users.active_user, is_usable_client=is_usable_client)
        warmup.add_step(keys.sign_once)
        web.refusal_counter.start(refusal_counts)
        monitoring.add_check("issuing_keys", keys.check_issuing_keys, roles=["issuer"])
        monitoring.add_check("database", audit.check_database, roles=["issuer", "service"])
        monitoring.add_check("audit", audit.check_writable, roles=["issuer"])
        monitoring.add_check("cache", throttling.check_cache, roles=["issuer"], required=False)
        monitoring.add_source("database", lambda: chain(keys.measure(), audit.measure()), role="issuer")
