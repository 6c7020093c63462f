"""What the admin pages of this app share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db import DataError
from django.forms import Form
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.html import format_html

from ..times import format_utc


# ModelAdmin takes a type argument for the type checker only.
class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows to look at: nobody adds, edits or deletes one here, superusers included."""

    actions: Sequence[Any] | None = None

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """The list. What an address says that no column can hold (the year 9999, whose end is none; a NUL) is a wrong
        address, which Django answers with a page that says so."""
        try:
            return super().get_changelist_instance(request)
        except (ValueError, OverflowError, DataError) as error:
            raise IncorrectLookupParameters(type(error).__name__) from None


def render_confirmation(
    model_admin: Any,
    request: HttpRequest,
    form: Form,
    *,
    title: Any,
    button: Any,
    effects: Sequence[Any],
    hidden: Iterable[tuple[str, str]] = (),
) -> TemplateResponse:
    """The page between a button and what it does: what will happen, what is asked, and one more button.

    `hidden` are further fields to send along.
    """
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": title,
        "form": form,
        "button": button,
        "effects": effects,
        "hidden": hidden,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/instaccess/confirm.html", context)


def time_element(moment: datetime | None) -> str:
    """A time as logs and tokens have it, to the second, whatever TIME_ZONE the project shows elsewhere."""
    if moment is None:
        return "-"
    return format_html('<time class="nowrap">{}</time>', format_utc(moment))
