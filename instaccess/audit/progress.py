"""Detection of a restored database: its progress is behind the progress that is stored in Django's cache.

All three values of a `_Progress` only grow, unless rows are lost. A value in the database that is smaller than the
remembered value has one of three causes. The database was restored, a replica without the last transactions has
replaced the database, or rows were deleted. All processes must share the cache, for example Redis. If the cache entry
is lost, this module can't detect a restore. `verify --checkpoint` detects a restore without the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple, Self

from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import router

from ..conf import conf
from ..logs import get_logger
from ..models import Key, KeyLock, RevocationLock
from ..times import format_utc
from .evidence.checkpoints import chain_start
from .evidence.statements import EvidenceKeys
from .row_ids import first_id, id_time
from .rows import current_time, issued_tokens

logger = get_logger("instaccess.audit")


class _Progress(NamedTuple):
    """The progress of a database: counters that decrease only if the database lost rows.

    Attributes:
        token: the id of the last audit row, even if the row was pruned.
        revocation: the number of the last revocation.
        keys: the number of key changes.
    """

    token: int
    revocation: int
    keys: int

    @classmethod
    def load(cls, evidence_keys: EvidenceKeys) -> Self:
        # An id contains the time of issue. An attacker can insert a row whose id contains a time in the distant
        # future. Leave out such a row. If the progress contained the id, `check_progress` would report that tokens
        # are missing from the audit log after `prune` has deleted the row.
        earlier = issued_tokens().filter(pk__lt=first_id(current_time() + timedelta(days=1)))
        token = earlier.order_by("pk").values_list("pk", flat=True).last() or 0
        revocation = RevocationLock.objects.using(router.db_for_write(RevocationLock))
        keys = KeyLock.objects.using(router.db_for_write(KeyLock))
        return cls(
            max(token, chain_start(evidence_keys).last),
            _integer(revocation.values_list("last_number", flat=True).first()),
            _integer(keys.values_list("changes", flat=True).first()),
        )


def _integer(value: object) -> int:
    # In SQLite, an attacker can store a value of any type. Use 0 instead, because comparing such a value would raise
    # TypeError.
    return value if isinstance(value, int) else 0


def check_progress(evidence_keys: EvidenceKeys) -> str:
    """Compare the database with the remembered progress, and remember the progress if nothing was lost.

    Returns a description of what was lost, for operators. Returns an empty string if nothing was lost, if there are
    no keys yet, or if the cache is unavailable or isn't shared between processes. Raises DatabaseError if a query
    fails.
    """
    name = _cache_key()
    if not name:
        return ""
    # Read the cache before the database. In the reverse order, another process could issue a token and store its
    # progress between the two reads. This process would then report lost rows.
    remembered = _recall(name)
    progress = _Progress.load(evidence_keys)
    if remembered is not None and (lost := "; ".join(_compare(remembered, progress))):
        return lost
    _remember(name, progress)
    return ""


def reset_progress(evidence_keys: EvidenceKeys) -> None:
    """Remember the progress of the database, even if rows were lost. Raises DatabaseError if a query fails."""
    if name := _cache_key():
        _remember(name, _Progress.load(evidence_keys))


def _compare(remembered: _Progress, progress: _Progress) -> Iterator[str]:
    if progress.token < remembered.token:
        last, once = (format_utc(id_time(each.token)) if each.token else "" for each in (progress, remembered))
        content = f"the last token in the audit log was issued at {last}" if last else "the audit log is empty"
        yield f"{content}, but the audit log once contained a token issued at {once}"
    if progress.revocation < remembered.revocation:
        yield "recorded revocations are missing"
    if progress.keys < remembered.keys:
        yield f"the last key changes are missing (at least {remembered.keys - progress.keys})"


def _cache_key() -> str:
    """Return the name of the cache entry, or an empty string if there are no keys yet.

    The first key identifies the deployment. Its row is never deleted, and every backup contains the row.
    """
    first = Key.objects.using(router.db_for_write(Key)).order_by("pk").values_list("kid", flat=True).first()
    return f"instaccess:progress:{first}" if first else ""


def _cache() -> Any:
    cache = caches[conf.throttle_cache]
    return None if isinstance(cache, (DummyCache, LocMemCache)) else cache


def _recall(name: str) -> _Progress | None:
    try:
        cache = _cache()
        values = None if cache is None else cache.get(name)
    except Exception as error:  # Each cache backend raises its own errors.
        logger.warning(
            "the progress of the database can't be compared, because the cache is unavailable: %(detail)s",
            error=type(error).__name__,
            detail=str(error),
        )
        return None
    if isinstance(values, list) and [type(value) for value in values] == [int, int, int]:
        return _Progress(*values)
    return None


def _remember(name: str, progress: _Progress) -> None:
    try:
        if (cache := _cache()) is not None:
            cache.set(name, list(progress), timeout=None)
    except Exception as error:
        logger.warning(
            "the progress of the database can't be remembered, because the cache is unavailable: %(detail)s",
            error=type(error).__name__,
            detail=str(error),
        )
