"""Measurements of the keys for monitoring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..models import Key
from ..monitoring import Sample
from . import queries, ring, rotation


def measure() -> Iterator[Sample]:
    """Yield the number of keys, the activation time of each current key, and the time of its next rotation.

    Raises DatabaseError or ConfigError.
    """
    rows = list(queries.stored_keys().defer("public_jwk"))
    for (use, status), count in sorted(Counter((row.use, row.status) for row in rows).items()):
        # Leave out values that an attacker may have stored, because each value would create a new series of metrics.
        if use in Key.Use.values and status in Key.Status.values:
            yield Sample("instaccess_keys", "Stored keys.", count, {"use": use, "status": status})
    times = ring.lifecycle_times()
    for row in rows:
        if row.status != Key.Status.CURRENT or row.activated_at is None or row.use not in Key.Use.values:
            continue
        yield Sample(
            "instaccess_key_activated_timestamp_seconds",
            "Time, in seconds since 1970, when the current key became current.",
            row.activated_at.timestamp(),
            {"use": row.use},
        )
        # Decide for the time of the activation. No rotation is due at this time, so `next_due` is the time of the
        # next rotation.
        due = rotation.decide(rows, use=Key.Use(row.use), now=row.activated_at, times=times).next_due
        if due is not None:
            yield Sample(
                "instaccess_next_rotation_timestamp_seconds",
                "Time, in seconds since 1970, from which `instaccess_keys rotate` replaces the current key.",
                due.timestamp(),
                {"use": row.use},
            )
