"""Lenient parsing of text that a user pasted into the inspector.

No function in this module decides whether a token is accepted. The returned values are not authenticated.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any

from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.debug import sensitive_variables

from ...tokens import nests_too_deep

MAX_SHOWN = 400
"""The maximum number of characters of a header member or a claim that the page shows."""

_QUOTES = "\"'`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"
_REPLY_MARK = re.compile(r"^[ \t]*>[> \t]*", re.MULTILINE)
_SCHEME = re.compile(r"\A(?:(?:authorization\s*:\s*)?bearer\s+|authorization\s*:\s*)", re.IGNORECASE)
_LATEST = 253_402_300_799
"""The last second of the year 9999, in seconds since 1970: the latest second that `datetime` supports."""


@sensitive_variables()
def extract_token(text: str) -> str:
    """Extract the token from text that was copied from a terminal, an e-mail, a header or the issuer's response.

    Removes whitespace, reply marks (`>`), quotes around the token, `Authorization: Bearer` before the token, and the
    issuer's JSON object around the token. Keeps all other characters, so that the inspector doesn't accept a token
    with an invalid character that a gateway refuses.
    """
    text = _REPLY_MARK.sub("", text).strip()
    if text.startswith("{"):
        text = _extract_from_response(text)
    for _layer in range(2):  # Strip the quotes around the header, then the quotes around the token.
        text = _SCHEME.sub("", text.strip(_QUOTES).strip())
    text = text.strip(_QUOTES)
    return "".join(text.split())


@sensitive_variables()
def _extract_from_response(text: str) -> str:
    try:
        response = _load_json("".join(text.split()))
    except (ValueError, RecursionError):
        return text
    token = response.get("token") if isinstance(response, dict) and len(response) == 1 else None
    return token if isinstance(token, str) else text


@sensitive_variables()
def members(token: str, segment: int) -> dict[str, Any]:
    """Return the JSON object in a segment of a compact serialization. Returns an empty dict if parsing fails.

    The function also accepts encodings that the gateway refuses.
    """
    try:
        text = token.split(".")[segment]
        value = _load_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    except (IndexError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@sensitive_variables()
def _load_json(text: str) -> Any:
    if nests_too_deep(text):
        raise RecursionError
    return json.loads(text)


def format_value(value: Any) -> str:
    """Format a value from a token as one line, shortened and without characters that hide or reorder text."""
    if not isinstance(value, str) or not value.isprintable():
        # Escape control characters and bidirectional marks, because these characters could hide or reorder text.
        # Escape lone surrogates, because UTF-8 can't encode them, and the page would fail.
        try:
            value = json.dumps(value, default=str)
        except (ValueError, RecursionError):
            return "…"
    return value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"


def parse_time(value: Any) -> datetime | None:
    """Convert seconds since 1970 to a time. Returns None for any other value."""
    return datetime.fromtimestamp(value, UTC) if type(value) is int and 0 <= value <= _LATEST else None


def format_relative(time: datetime, now: datetime) -> str:
    """Describe the difference between a time and `now`, for example as “5 minutes ago”."""
    if time > now:
        return _("in %(period)s") % {"period": _format_span(now, time)}
    return _("%(period)s ago") % {"period": _format_span(time, now)}


def _format_span(start: datetime, end: datetime) -> str:
    seconds = int((end - start).total_seconds())
    if seconds < 60:  # Django's `timesince` would return “0 minutes”.
        return ngettext("%(count)d second", "%(count)d seconds", seconds) % {"count": seconds}
    return timesince(start, end).replace("\xa0", " ")
