"""Parsing of the Retry-After header, and the clocks of the client."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


def parse_retry_after(value: str | None, *, date: str | None, now: float) -> float | None:
    """Return the seconds in a Retry-After header (RFC 9110 §10.2.3), or None if there is no valid time.

    Args:
        value: the header: a number of seconds, or an HTTP date.
        date: the Date header of the same response, or None. If this header is valid, an HTTP date in `value` is
            compared with this header and not with `now`, because the clock of the client may be wrong.
        now: the time of the client in seconds since 1970.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    moment = _parse_date(text)
    if moment is None:
        return None
    reference = _parse_date(date or "")
    return max(0.0, moment - (now if reference is None else reference))


def _parse_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        # For the zone "-0000", Python returns a time without a time zone. Use UTC, because HTTP dates are in UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def monotonic() -> float:
    """Return the seconds since an arbitrary time. On Linux and macOS, the time of a suspension is included.

    Python's `time.monotonic` stops during a suspension on Linux and macOS. With `time.monotonic`, a laptop would use
    a token that expired during the suspension.
    """
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


# macOS has no CLOCK_BOOTTIME, and its CLOCK_MONOTONIC also runs during a suspension. Windows has neither clock.
_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def wall_clock() -> float:
    """Return the seconds since 1970."""
    return datetime.now(UTC).timestamp()
