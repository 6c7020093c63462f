"""How often the issuer and the gateway refuse, by hour and reason.

Counted in memory, and written when a request ends and the last write of this process was `INTERVAL` seconds ago: a
flood of bad tokens costs each worker one short write in that time, and nobody waits for it, for the answer has left
before. A worker that is killed loses what it has not written yet.

No token and nobody's address is counted, nor any text of a request: reasons are our own codes, client and user are
taken from our own rows, or from a token whose signature has been checked. Where the app is not installed (a gateway
of its own) there is no table, and nothing is counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

from django.core.signals import request_finished
from django.db import connections
from django.db.models import QuerySet

from .tally import Kind, Tally

if TYPE_CHECKING:  # importing it at run time needs the app
    from ..models import RefusalCount

logger = logging.getLogger("instaccess.refusals")

INTERVAL = 10
"""Seconds between two writes of a process, and between two attempts while the database is away."""

KINDS = 200
"""How many different (role, reason, client, user) a process tells apart in an hour."""

OTHER = "other"
REASONS = frozenset(
    {
        # The tokens, as the gateway finds them, and the issuer where one comes as bearer.
        *("no_credentials", "malformed_header", "malformed", "too_long", "bad_header", "wrong_alg", "wrong_type"),
        *("decrypt_failed", "unknown_kid", "bad_signature", "bad_claim", "bad_lifetime", "not_yet", "invalid"),
        *("foreign_issuer", "expired", "revoked", "already_decrypted", "other_bearer", "jwt_from_jwt", "broken_jwt"),
        # The OAuth2 access token, and what is asked for with it.
        *(
            "unknown_token",
            "no_user",
            "no_application",
            "inactive_user",
            "refused_by_validator",
            "insufficient_scope",
        ),
        *("as_user_id", "as_user_id_unknown", "as_user_id_not_allowed", "throttled", "method", "bad_request"),
        # Answered with 503: it was our fault.
        *("no_key", "source_unavailable", "unseal", "kek_missing", "seal_broken", "audit", "config", "fault"),
        *("claims_too_large", "claims_not_json"),
        OTHER,
    }
)
"""All there are. A code that somebody's hook has made up is counted as `OTHER`."""

_COMPLAIN_SECONDS = 60
_TRIM_SECONDS = 3600
_MAX_ID_CHARS = 255

_tally = Tally(kinds=KINDS, hours=24)


class _Writer:
    """When this process wrote, and where."""

    def __init__(self) -> None:
        self.counting = False
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.attempted_at = time.monotonic()
        self.complained_at = self.trimmed_at = float("-inf")
        self.failed = False
        self.database: Any = None

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self.attempted_at >= INTERVAL

    def complain(self, error: Exception) -> None:
        if time.monotonic() - self.complained_at >= _COMPLAIN_SECONDS:
            self.complained_at = time.monotonic()
            logger.warning("counts of refusals not written, kept for later: %s: %s", type(error).__name__, error)


_writer = _Writer()


def start() -> None:
    """Count from now on, for there is a table: called once the app is there."""
    if not _writer.counting:
        _writer.counting = True
        request_finished.connect(_write_when_due, dispatch_uid="instaccess.refusals")
        atexit.register(_write_at_exit)


def count(role: str, reason: str, *, client_id: str = "", user_uuid: str = "") -> None:
    """One refusal more. In memory: it takes some microseconds, never waits for the database and never fails.

    Args:
        role: of `RefusalCount.Role`.
        reason: one of `REASONS`.
        client_id, user_uuid: who was refused, where that is known from a source that can be trusted.
    """
    if _writer.counting:
        reason = reason if reason in REASONS else OTHER
        hour = int(time.time()) // 3600
        _tally.add(Kind(hour, str(role), reason, _identifier(client_id), _identifier(user_uuid)))


def flush() -> int:
    """Write now what is pending, in two statements and a short transaction; returns how many refusals that were.

    Never raises: what can't be written is kept for later, and the log says so once a minute. Inside somebody's
    transaction it goes with that one.
    """
    with _writer.lock:
        return _flush()


def forget() -> None:
    """Drop what is pending; the next write comes after `INTERVAL`. For tests."""
    _tally.forget()
    _writer.forget()


def rows() -> QuerySet[RefusalCount]:
    """What has been written, in the database it is written to: a replica may lag behind."""
    found: QuerySet[RefusalCount] = _table().rows()
    return found


def _identifier(text: Any) -> str:
    # Anything else no database need be asked to hold; client ids are so by RFC 6749 appendix A.1, uuids anyhow.
    return (
        text if isinstance(text, str) and len(text) <= _MAX_ID_CHARS and text.isascii() and text.isprintable() else ""
    )


def _write_when_due(**kwargs: Any) -> None:
    """At the end of each request, after the answer has gone out."""
    if not _tally or (_writer.database is not None and not _writer.is_due):
        return
    try:
        connection = _connection()
        _writer.database = connection.settings_dict["NAME"]
        # In a transaction of somebody who tests their project, it would show in their queries and go with it.
        if not _writer.is_due or connection.in_atomic_block or not _writer.lock.acquire(blocking=False):
            return
        try:
            if _writer.is_due:
                _flush()
        finally:
            _writer.lock.release()
    except Exception as error:  # a router of the project, or a database that is not configured
        _writer.complain(error)


def _write_at_exit() -> None:
    """The last counts of a worker that ends in good order."""
    if not _tally or _writer.failed or not _writer.lock.acquire(blocking=False):
        return
    try:
        # Tests are over: the settings name the real database again, and what they counted is not for it.
        if _connection().settings_dict["NAME"] == _writer.database:
            _flush()
    except Exception as error:
        _writer.complain(error)
    finally:
        _writer.lock.release()


def _flush() -> int:
    counts = _tally.take()
    if not counts:
        return 0
    written = False
    try:
        connection = _connection()
        was_open = connection.connection is not None
        try:
            _table().add(counts)
            written = True
            if time.monotonic() - _writer.trimmed_at >= _TRIM_SECONDS and _table().trim():
                _writer.trimmed_at = time.monotonic()
        finally:
            # The request is over, and with it whoever would have closed it.
            if not was_open and not connection.in_atomic_block:
                connection.close()
    except Exception as error:  # whatever it is, a request that has been answered must not fail of it
        _writer.complain(error)
    finally:
        # After it, not before: a database that hangs gets its pause as well.
        _writer.attempted_at = time.monotonic()
        _writer.failed = not written
        if not written:
            _tally.put_back(counts)
    return sum(counts.values()) if written else 0


def _connection() -> Any:
    return connections[rows().db]


def _table() -> ModuleType:
    from ..audit import refusal_counts as refusal_table  # noqa: PLC0415  (there are no models where the app is not installed)

    return refusal_table
