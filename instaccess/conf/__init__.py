"""The INSTACCESS setting: one typed property for each entry."""

from .settings import DERIVED, SCOPE, SETTINGS, Conf, conf
from .values import kek_id

__all__ = ["DERIVED", "SCOPE", "SETTINGS", "Conf", "conf", "kek_id"]
