"""Base classes and functions that several admin pages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.db import DataError, router
from django.forms import Form
from django.http import HttpRequest, QueryDict
from django.template.loader import get_template
from django.template.response import TemplateResponse
from django.utils.datastructures import MultiValueDict
from django.utils.html import format_html

from .. import charsets, web
from ..times import format_utc


# Omit the type parameter: `ModelAdmin[…]` fails at run time, because only type checkers treat ModelAdmin as generic.
class OfferedFiltersAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin whose URLs accept only the filters that the change list offers."""

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Return whether the change list offers this filter. Django refuses other filters with a 400."""
        offered: Any = self.get_list_filter(request)
        return lookup in {name for each in offered for name in _parameter_names(each)}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"filters_above": _is_list_of_django(), **(extra_context or {})})


def _is_list_of_django() -> bool:
    """Return whether change lists use Django's own template. A theme's template chooses the place of the filters."""
    template: Any = get_template("admin/change_list.html")
    return Path(template.origin.name).is_relative_to(Path(admin.__file__).parent)


def _parameter_names(offered: Any) -> Sequence[str]:
    """Return the names of the URL parameters of an item of `list_filter`."""
    if isinstance(offered, str):
        # Add `__exact` to the name of a field, because the links of a filter by the field "use", for example, contain
        # the parameter "use__exact".
        return (f"{offered}__exact",)
    names: Sequence[str] = getattr(offered, "parameter_names", (offered.parameter_name,))
    return names


class ReadOnlyAdmin(OfferedFiltersAdmin):
    """An admin with read-only rows. Even superusers can't add, edit or delete a row."""

    actions: Sequence[Any] | None = None

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Record a change in the admin log. Characters that the database can't store are replaced."""
        return super().log_change(request, obj, _fit_log_message(message))

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Record an addition in the admin log. Characters that the database can't store are replaced."""
        return super().log_addition(request, obj, _fit_log_message(message))

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the change list for the filters in the URL.

        Raises IncorrectLookupParameters if the URL contains a value that no column can store, such as a NUL
        character. Django then redirects to the change list with an error message instead of answering 500.
        """
        try:
            return super().get_changelist_instance(request)
        except (ValueError, OverflowError, DataError) as error:
            raise IncorrectLookupParameters(type(error).__name__) from None


def take_form(request: HttpRequest) -> tuple[QueryDict, MultiValueDict[str, Any]]:
    """Remove the form and the files from a request, and return the form and the files.

    Call this function first in a view, so that no error report of a later failure contains the form or the files.
    """
    form, files = request.POST, request.FILES
    web.forget_parameters(request)
    return form, files


def _fit_log_message(message: Any) -> Any:
    # Only a string can contain characters that the database can't store, for example in a reason that a user entered.
    # Django stores a list of changes as ASCII JSON.
    if not isinstance(message, str):
        return message
    return charsets.fit(message, LogEntry._meta.get_field("change_message"), using=router.db_for_write(LogEntry))


def render_confirmation(
    model_admin: Any,
    request: HttpRequest,
    form: Form,
    *,
    title: Any,
    button: Any,
    effects: Sequence[Any],
    note: str = "",
    hidden: Iterable[tuple[str, str]] = (),
) -> TemplateResponse:
    """Render the page that asks a user to confirm a change.

    Args:
        form: the form with the fields that the user must fill in.
        title: the title of the page.
        button: the label of the submit button.
        effects: sentences that describe the effects of the change.
        note: what the user must know about their permissions, or an empty string if there is nothing to know.
        hidden: the names and the values of additional hidden fields.
    """
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": title,
        "form": form,
        "button": button,
        "effects": effects,
        "note": note,
        "hidden": hidden,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/instaccess/confirm.html", context)


def time_element(time: datetime | None) -> str:
    """Render a time as HTML, in UTC and to the second. The setting TIME_ZONE has no effect. Returns "-" for None."""
    if time is None:
        return "-"
    return format_html('<time class="nowrap">{}</time>', format_utc(time))


def label_cell(label: Any, value: Any) -> str:
    """Render a cell with the heading of its column.

    The heading is visible only on a phone, where a row is displayed as a card.
    """
    return format_html('<span class="instaccess-cell-label">{}</span> {}', label, value)
