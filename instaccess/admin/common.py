"""Base classes and helpers that the admin pages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.db import DataError, router
from django.forms import Form
from django.http import HttpRequest, QueryDict
from django.template.response import TemplateResponse
from django.utils.datastructures import MultiValueDict
from django.utils.html import format_html

from .. import charsets, web
from ..times import format_utc


# Omit the type parameter, because ModelAdmin is generic only for type checkers: `ModelAdmin[…]` fails at run time.
class OfferedFiltersAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin whose URLs accept only the filters that the list offers."""

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Return whether the list offers this filter. If not, Django answers 400 and logs the lookup, not the value.

        Django would allow every lookup on every column. A user who may only view the rows could then read a column
        that no page shows, one comparison at a time, or stall the database with a regular expression.
        """
        offered: Any = self.get_list_filter(request)
        # A filter by a field, such as "use", has the parameter "use__exact" in its links.
        return lookup in {f"{each}__exact" if isinstance(each, str) else each.parameter_name for each in offered}


class ReadOnlyAdmin(OfferedFiltersAdmin):
    """An admin of read-only rows. No user, not even a superuser, can add, edit or delete a row."""

    actions: Sequence[Any] | None = None

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log a change in the admin's log, in a spelling that the database can store."""
        return super().log_change(request, obj, _fit_log_message(message))

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log an addition in the admin's log, in a spelling that the database can store."""
        return super().log_addition(request, obj, _fit_log_message(message))

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the change list.

        Raises IncorrectLookupParameters if the URL contains a value that no column can store, such as a NUL
        character. Django then redirects to the change list with an error message instead of answering 500.
        """
        try:
            return super().get_changelist_instance(request)
        except (ValueError, OverflowError, DataError) as error:
            raise IncorrectLookupParameters(type(error).__name__) from None


def take_form(request: HttpRequest) -> tuple[QueryDict, MultiValueDict[str, Any]]:
    """Return the form and the files of a request, and remove them from the request.

    Call this function first, so that no error report of a later failure contains the form or the files.
    """
    form, files = request.POST, request.FILES
    web.forget_parameters(request)
    return form, files


def _fit_log_message(message: Any) -> Any:
    # Django writes a list of changes as JSON in ASCII. A string may contain the reason that a user entered.
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
    hidden: Iterable[tuple[str, str]] = (),
) -> TemplateResponse:
    """Render the confirmation page that is shown before a change is made.

    Args:
        form: the form with the fields that the user must fill in.
        title: the title of the page.
        button: the label of the submit button.
        effects: the sentences that describe the effects of the change.
        hidden: the names and the values of additional hidden fields.
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


def time_element(time: datetime | None) -> str:
    """Render a time in UTC, to the second. The project's TIME_ZONE has no effect."""
    if time is None:
        return "-"
    return format_html('<time class="nowrap">{}</time>', format_utc(time))
