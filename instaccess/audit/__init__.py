"""The audit log of issued tokens: recording, revocation, export, tamper evidence. Callers pass in the keys."""

from .evidence.checkpoints import SETTLED, checkpoints, seal
from .evidence.pruning import prunable, prune
from .evidence.reauthentication import reauthenticate
from .evidence.statements import EvidenceKeys, Statement, export_checkpoint, read_checkpoint, read_exported, signed_by
from .evidence.verification import verify
from .export import Export, Format
from .names import ERASED as ERASED_NAME
from .names import count as count_names
from .names import erase as erase_name
from .names import find_uuids, names_status
from .recording import commit, insert
from .refusal_counts import RETENTION as REFUSAL_RETENTION
from .refusal_counts import RefusalSpike, refusal_spikes
from .refusal_counts import rows as refusal_rows
from .revocation import revoke
from .row_hmac import HmacStatus, authenticate, canonical_bytes, row_status
from .rows import (
    filter_by_account,
    filter_by_application,
    filter_by_keys,
    filter_by_recorded_name,
    filter_by_user,
    filter_by_uuid,
    fit,
    issued_tokens,
    live_tokens,
    revocable_tokens,
    token_status,
)

__all__ = [
    "ERASED_NAME",
    "REFUSAL_RETENTION",
    "SETTLED",
    "EvidenceKeys",
    "Export",
    "Format",
    "HmacStatus",
    "RefusalSpike",
    "Statement",
    "authenticate",
    "canonical_bytes",
    "checkpoints",
    "commit",
    "count_names",
    "erase_name",
    "export_checkpoint",
    "filter_by_account",
    "filter_by_application",
    "filter_by_keys",
    "filter_by_recorded_name",
    "filter_by_user",
    "filter_by_uuid",
    "find_uuids",
    "fit",
    "insert",
    "issued_tokens",
    "live_tokens",
    "names_status",
    "prunable",
    "prune",
    "read_checkpoint",
    "read_exported",
    "reauthenticate",
    "refusal_rows",
    "refusal_spikes",
    "revocable_tokens",
    "revoke",
    "row_status",
    "seal",
    "signed_by",
    "token_status",
    "verify",
]
