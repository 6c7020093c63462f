"""The admin pages of this app. No page shows a private key or a token, and users can't edit the audit log."""

from .keys.page import KeyAdmin
from .service_users import ServiceUserAdmin
from .tokens.page import IssuedTokenAdmin

__all__ = ["IssuedTokenAdmin", "KeyAdmin", "ServiceUserAdmin"]
