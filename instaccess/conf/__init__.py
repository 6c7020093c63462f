"""The INSTACCESS settings, with one typed property per setting."""

from .key_encryption import KeyEncryptionKey, PreparedHmac, kek_id
from .key_settings import DERIVED
from .settings import KEEPING_SLACK, REVOCATION_SECONDS, SCOPE, SETTINGS, Conf, conf

__all__ = [
    "DERIVED",
    "KEEPING_SLACK",
    "REVOCATION_SECONDS",
    "SCOPE",
    "SETTINGS",
    "Conf",
    "KeyEncryptionKey",
    "PreparedHmac",
    "conf",
    "kek_id",
]
