"""Functions that return the URLs and the text of key pages, the stored keys, and the log entries of the admin."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.urls import reverse

from instaccess.models import Key

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LIST = reverse("admin:instaccess_key_changelist")
GENERATE, IMPORT = reverse("admin:instaccess_key_generate"), reverse("admin:instaccess_key_import")


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)


def rows() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


def revoke_url(kid: str) -> str:
    return reverse("admin:instaccess_key_revoke", args=[kid])


def page_text(response: Any) -> str:
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def messages_of(response: Any) -> list[str]:
    """Check that a response redirects to the list of keys. Returns the messages of the redirect."""
    assert (response.status_code, response.url) == (302, LIST)
    return [str(message) for message in get_messages(response.wsgi_request)]


def logged() -> list[tuple[str, str, int, str]]:
    entries = LogEntry.objects.order_by("pk").select_related("user")
    return [(e.user.username, e.object_id, e.action_flag, e.get_change_message()) for e in entries]
