"""This deployment's keys: generation, sealing, publication, rotation and revocation."""

from .audit_keys import evidence_keys, keks_for_revocation
from .health import KeyHealth, load_health, short_kid
from .lifecycle import Rotation, activate, revoke, rotate
from .provision import (
    check_sealed_keys,
    export,
    export_private,
    generate,
    import_key,
    init,
    missing_keys,
    reseal,
)
from .ring import HeldKey, KeyRing, current_ring, lifecycle_times, public_key, sign_once
from .rotation import (
    Times,
    can_rotate_automatically,
    decide,
    forecast,
    gone_at,
    is_gone,
    is_next,
    is_ready,
    ready_at,
    served_at,
)
from .store import current_key, find_key, future_keys, next_key, stored_keys

__all__ = [
    "HeldKey",
    "KeyHealth",
    "KeyRing",
    "Rotation",
    "Times",
    "activate",
    "can_rotate_automatically",
    "check_sealed_keys",
    "current_key",
    "current_ring",
    "decide",
    "evidence_keys",
    "export",
    "export_private",
    "find_key",
    "forecast",
    "future_keys",
    "generate",
    "gone_at",
    "import_key",
    "init",
    "is_gone",
    "is_next",
    "is_ready",
    "keks_for_revocation",
    "lifecycle_times",
    "load_health",
    "missing_keys",
    "next_key",
    "public_key",
    "ready_at",
    "reseal",
    "revoke",
    "rotate",
    "served_at",
    "short_kid",
    "sign_once",
    "stored_keys",
]
