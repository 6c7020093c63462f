"""The INSTACCESS settings, with one typed property per setting."""

from .key_encryption import KeyEncryptionKey, kek_id
from .key_settings import DERIVED
from .settings import SCOPE, SETTINGS, Conf, conf

__all__ = ["DERIVED", "SCOPE", "SETTINGS", "Conf", "KeyEncryptionKey", "conf", "kek_id"]
