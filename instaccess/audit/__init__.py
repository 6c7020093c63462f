"""The audit log of issued tokens: recording, revocation, export and tamper evidence. Callers pass in the keys."""

from .evidence.checkpoint_index import export_checkpoint, read_exported
from .evidence.checkpoints import SETTLED, checkpoints, seal
from .evidence.pruning import prunable, prune
from .evidence.reauthentication import reauthenticate
from .evidence.report import Problem, Report
from .evidence.reviews import record_review
from .evidence.signatures import read_checkpoint, signed_by
from .evidence.statements import EvidenceKeys, Statement
from .evidence.verification import verify
from .export import Export, Format
from .long_work import Advance, Progress, ignore_progress
from .maintenance import maintenance_runs, record_run
from .measurements import measure
from .names import ERASED as ERASED_NAME
from .names import count as count_names
from .names import erase as erase_name
from .names import find_uuids, names_status
from .oauth2_revocation import revoke_with_oauth2_tokens
from .oauth2_tokens import KINDS as OAUTH2_KINDS
from .oauth2_tokens import OAuth2Tokens, service_applications
from .oauth2_tokens import summarize as summarize_oauth2_tokens
from .progress import check_progress, reset_progress
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
from .row_hmac import check as check_hmac
from .row_ids import id_time
from .rows import (
    current_time,
    filter_by_access,
    filter_by_account,
    filter_by_application,
    filter_by_keys,
    filter_by_recorded_name,
    filter_by_user,
    filter_by_uuid,
    fit,
    issued_tokens,
    live_tokens,
    require_columns,
    revocable_tokens,
    token_status,
)
from .scopes import Scope, scopes_of_account, scopes_of_user
from .writability import check_database, check_writable
from .writability import reset as reset_writability

__all__ = [
    "ERASED_NAME",
    "OAUTH2_KINDS",
    "REFUSAL_RETENTION",
    "SETTLED",
    "Advance",
    "EvidenceKeys",
    "Export",
    "Format",
    "HmacStatus",
    "OAuth2Tokens",
    "Problem",
    "Progress",
    "RefusalSpike",
    "Report",
    "Scope",
    "Statement",
    "authenticate",
    "canonical_bytes",
    "check_database",
    "check_hmac",
    "check_progress",
    "check_writable",
    "checkpoints",
    "commit",
    "complete_revocations",
    "count_names",
    "current_time",
    "erase_name",
    "export_checkpoint",
    "filter_by_access",
    "filter_by_account",
    "filter_by_application",
    "filter_by_keys",
    "filter_by_recorded_name",
    "filter_by_user",
    "filter_by_uuid",
    "find_uuids",
    "fit",
    "id_time",
    "ignore_progress",
    "insert",
    "issued_tokens",
    "live_tokens",
    "maintenance_runs",
    "mark_revoked",
    "measure",
    "names_status",
    "prunable",
    "prune",
    "read_checkpoint",
    "read_exported",
    "reauthenticate",
    "record_review",
    "record_revocation",
    "record_run",
    "recorded_keys",
    "refusal_rows",
    "refusal_spikes",
    "require_columns",
    "reset_progress",
    "reset_writability",
    "revocable_tokens",
    "revoke",
    "revoke_with_oauth2_tokens",
    "row_status",
    "scopes_of_account",
    "scopes_of_user",
    "seal",
    "service_applications",
    "signed_by",
    "summarize_oauth2_tokens",
    "token_status",
    "verify",
]
