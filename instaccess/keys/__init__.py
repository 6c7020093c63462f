"""This deployment's keys: generation, encryption at rest, publication, rotation and revocation."""

from .after_revocation import RELOAD_JWKS, REMOVE_PUBLIC_KEY, REPLACE_PRIVATE_KEY, remaining_work
from .audit_keys import evidence_keys, keks_for_revocation
from .health import KeyHealth, live_tokens, load_health, short_kid
from .held_keys import HeldKey
from .lifecycle import Rotation, activate, revoke, rotate
from .measurements import measure
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
from .queries import (
    authentic_keys,
    current_key,
    examine,
    find_key,
    future_keys,
    is_authentic,
    next_key,
    problem,
    stored_keys,
    unreadable_rows,
)
from .replacement import Plan, Replacement, plan_replacement, replace_all
from .ring import KeyRing, check_issuing_keys, current_ring, current_time, lifecycle_times, sign_once
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
from .row_hmac import is_revocable

__all__ = [
    "RELOAD_JWKS",
    "REMOVE_PUBLIC_KEY",
    "REPLACE_PRIVATE_KEY",
    "HeldKey",
    "KeyHealth",
    "KeyRing",
    "Plan",
    "Replacement",
    "Rotation",
    "Times",
    "activate",
    "authentic_keys",
    "can_rotate_automatically",
    "check_issuing_keys",
    "check_sealed_keys",
    "current_key",
    "current_ring",
    "current_time",
    "decide",
    "evidence_keys",
    "examine",
    "export",
    "export_private",
    "find_key",
    "forecast",
    "future_keys",
    "generate",
    "gone_at",
    "import_key",
    "init",
    "is_authentic",
    "is_gone",
    "is_next",
    "is_ready",
    "is_revocable",
    "keks_for_revocation",
    "lifecycle_times",
    "live_tokens",
    "load_health",
    "measure",
    "missing_keys",
    "next_key",
    "plan_replacement",
    "problem",
    "ready_at",
    "remaining_work",
    "replace_all",
    "reseal",
    "revoke",
    "rotate",
    "served_at",
    "short_kid",
    "sign_once",
    "stored_keys",
    "unreadable_rows",
]
