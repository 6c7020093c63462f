"""The issuer role: exchange of an OAuth2 access token for an InstAccess token."""

from .issuing import Origin, issue

__all__ = ["Origin", "issue"]
