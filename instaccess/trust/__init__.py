"""The keys of gateways and services, and the deny list of gateways. This package imports no models."""

from .denylist import RESTORED, read_revocations
from .denylist import age as deny_list_age
from .denylist import clear_cache as clear_deny_list
from .denylist import current as current_deny_list
from .denylist import sizes as deny_list_sizes
from .loading import open_own_connections
from .material import for_use, private_to_text, public_members
from .material import generate as generate_key
from .material import parse as parse_key
from .material import to_text as key_to_text
from .refreshed import Refreshed
from .remote_jwks import MustWait, RemoteKeys
from .revocation_table import use as use_audit_table
from .revoked import DenyList, Page
from .sources import decryption_keys, has_key_table, verification_keys, verification_keys_without_waiting
from .sources import use as use_key_table

__all__ = [
    "RESTORED",
    "DenyList",
    "MustWait",
    "Page",
    "Refreshed",
    "RemoteKeys",
    "clear_deny_list",
    "current_deny_list",
    "decryption_keys",
    "deny_list_age",
    "deny_list_sizes",
    "for_use",
    "generate_key",
    "has_key_table",
    "key_to_text",
    "open_own_connections",
    "parse_key",
    "private_to_text",
    "public_members",
    "read_revocations",
    "use_audit_table",
    "use_key_table",
    "verification_keys",
    "verification_keys_without_waiting",
]
