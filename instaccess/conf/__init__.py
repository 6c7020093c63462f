"""The INSTACCESS setting: one typed property for each entry."""

from .settings import DERIVED, SCOPE, SETTINGS, Conf, conf

__all__ = ["DERIVED", "SCOPE", "SETTINGS", "Conf", "conf"]
