"""The admin: a safe surface. No private key, no token, and nothing in the audit can be changed from here."""

from .keys.page import KeyAdmin
from .service_users import ServiceUserAdmin
from .tokens.page import IssuedTokenAdmin

__all__ = ["IssuedTokenAdmin", "KeyAdmin", "ServiceUserAdmin"]
