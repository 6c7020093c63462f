"""Times as strings, always in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def format_utc(when: datetime) -> str:
    """Format a time for people, with seconds: `2026-11-26 18:00:00 UTC`."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def format_utc_minutes(when: datetime) -> str:
    """Format a time for people, to the minute: `2026-11-26 18:00 UTC`."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_rfc3339(when: datetime) -> str:
    """Format a time for programs (RFC 3339), with seconds: `2026-11-26T18:00:00Z`."""
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
