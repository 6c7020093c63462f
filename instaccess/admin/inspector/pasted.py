"""What somebody pasted: freed from what copying added, and read as leniently as showing it takes.

Nothing here decides anything about a token, and nothing read here is to be believed.
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
"""Characters shown of one value."""

_QUOTES = "\"'`\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"
_REPLY_MARK = re.compile(r"^[ \t]*>[> \t]*", re.MULTILINE)
_SCHEME = re.compile(r"\A(?:(?:authorization\s*:\s*)?bearer\s+|authorization\s*:\s*)", re.IGNORECASE)
_LATEST = 253_402_300_799  # the last second of the year 9999


@sensitive_variables()
def extract_token(text: str) -> str:
    """The token in what was copied from a terminal, an e-mail, a header or the issuer's answer.

    Taken away are line breaks and blanks, marks of a reply (`>`), quotes around it, `Authorization: Bearer` before it
    and the issuer's JSON object around it. Characters that are none of a token's stay: they are for others to judge.
    """
    text = _REPLY_MARK.sub("", text).strip()
    if text.startswith("{"):
        text = _of_answer(text)
    for _layer in range(2):  # the whole header may stand in quotes, or its value
        text = _SCHEME.sub("", text.strip(_QUOTES).strip())
    text = text.strip(_QUOTES)
    return "".join(text.split())


@sensitive_variables()
def _of_answer(text: str) -> str:
    try:
        answer = _loads("".join(text.split()))
    except (ValueError, RecursionError):
        return text
    token = answer.get("token") if isinstance(answer, dict) and len(answer) == 1 else None
    return token if isinstance(token, str) else text


@sensitive_variables()
def members(token: str, segment: int) -> dict[str, Any]:
    """The JSON object in one segment of a compact serialization, however sloppily it is written; empty where there is
    no reading it."""
    try:
        text = token.split(".")[segment]
        value = _loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    except (IndexError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@sensitive_variables()
def _loads(text: str) -> Any:
    if nests_too_deep(text):
        raise RecursionError
    return json.loads(text)


def format_value(value: Any) -> str:
    """A value from a token as one line of text: cut, and with nothing in it that hides or reorders what follows."""
    if not isinstance(value, str) or not value.isprintable():
        # ASCII escapes: controls, bidirectional marks and lone surrogates are seen for what they are.
        try:
            value = json.dumps(value, default=str)
        except (ValueError, RecursionError):
            return "…"
    return value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"


def moment(value: Any) -> datetime | None:
    """Seconds since the epoch as a time; None for anything else."""
    return datetime.fromtimestamp(value, UTC) if type(value) is int and 0 <= value <= _LATEST else None


def when(then: datetime, now: datetime) -> str:
    """How long ago, or in how long."""
    if then > now:
        return _("in %(period)s") % {"period": _period(now, then)}
    return _("%(period)s ago") % {"period": _period(then, now)}


def _period(start: datetime, end: datetime) -> str:
    seconds = int((end - start).total_seconds())
    if seconds < 60:  # Django's words know nothing shorter than a minute
        return ngettext("%(count)d second", "%(count)d seconds", seconds) % {"count": seconds}
    return timesince(start, end).replace("\xa0", " ")
