"""The INSTACCESS settings, with one typed property per setting."""

from .key_settings import DERIVED, kek_id
from .settings import SCOPE, SETTINGS, Conf, conf

__all__ = ["DERIVED", "SCOPE", "SETTINGS", "Conf", "conf", "kek_id"]
