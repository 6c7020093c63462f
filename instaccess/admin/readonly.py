"""What the admin pages of this app share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html


# ModelAdmin takes a type argument for the type checker only.
class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows to look at: nobody adds, edits or deletes one here, superusers included."""

    actions = None

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def utc(moment: datetime | None) -> str:
    """A time as logs and tokens have it, to the second, whatever TIME_ZONE the project shows elsewhere."""
    if moment is None:
        return "-"
    return format_html('<time class="nowrap">{}</time>', f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
