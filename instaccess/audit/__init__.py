"""The audit log of issued tokens: recording, revocation, export, tamper evidence. Callers pass in the keys."""

from .evidence.checkpoints import SETTLED, checkpoints, seal
from .evidence.pruning import prunable, prune
from .evidence.reauthentication import reauthenticate
from .evidence.statements import EvidenceKeys, Statement, export_checkpoint, read_checkpoint, read_exported, signed_by
from .evidence.verification import verify
from .export import Export, Format
from .recording import commit, insert
from .refusal_counts import RETENTION as REFUSAL_RETENTION
from .refusal_counts import RefusalSpike, refusal_spikes
from .refusal_counts import rows as refusal_rows
from .revocation import complete as complete_revocations
from .revocation import mark as mark_revoked
from .revocation import record as record_revocation
from .revocation import revoke
from .revocation_log import recorded_keys
from .row_hmac import HmacStatus, authenticate, canonical_bytes, row_status
from .rows import (
    filter_by_keys,
    filter_by_user,
    issued_tokens,
    live_tokens,
    revocable_tokens,
    token_status,
)
from .scopes import Scope, scopes_of_account, scopes_of_user

__all__ = [
    "REFUSAL_RETENTION",
    "SETTLED",
    "EvidenceKeys",
    "Export",
    "Format",
    "HmacStatus",
    "RefusalSpike",
    "Scope",
    "Statement",
    "authenticate",
    "canonical_bytes",
    "checkpoints",
    "commit",
    "complete_revocations",
    "export_checkpoint",
    "filter_by_keys",
    "filter_by_user",
    "insert",
    "issued_tokens",
    "live_tokens",
    "mark_revoked",
    "prunable",
    "prune",
    "read_checkpoint",
    "read_exported",
    "reauthenticate",
    "record_revocation",
    "recorded_keys",
    "refusal_rows",
    "refusal_spikes",
    "revocable_tokens",
    "revoke",
    "row_status",
    "scopes_of_account",
    "scopes_of_user",
    "seal",
    "signed_by",
    "token_status",
    "verify",
]
