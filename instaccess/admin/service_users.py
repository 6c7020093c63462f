"""The admin page of service users. In the client credentials grant, an application acts as its service user."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth import get_user_model
from django.db.models import QuerySet, Subquery
from django.http import HttpRequest
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from oauth2_provider.models import get_application_model

from .. import audit, users
from ..models import IssuedToken, ServiceUser
from .common import OfferedFiltersAdmin, label_cell, time_element
from .dashboard.page import DashboardPage

MAX_NAMED = 5
"""The maximum number of permissions that a warning names."""

_HELP = {
    "application": _(
        "The OAuth2 application that requests tokens with the client credentials grant. An application has at most "
        "one service user."
    ),
    "user": _(
        "The user in these tokens. The application gets every permission of this user. Create a separate user for "
        "the application, with only the permissions that the application needs."
    ),
}
_CONFIRMATION = "confirmed_user"


class _ConfirmationBox(forms.CheckboxInput):
    """A checkbox that submits the primary key of the user about whom the page warns. The box is never preselected.

    If the administrator then chooses another user, the submitted primary key doesn't confirm the other user.
    """

    def __init__(self, user: Any) -> None:
        super().__init__({"value": str(user.pk)}, check_test=lambda value: False)

    def format_value(self, value: Any) -> None:
        return None


class ServiceUserForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form that binds an application to a user. If the user is privileged, the form asks for a confirmation."""

    editor: Any
    confirmed_user = forms.CharField(
        label=_("Bind the application to this privileged user"), required=False, widget=forms.HiddenInput
    )

    def clean_user(self) -> Any:
        user = self.cleaned_data["user"]
        if user.pk != self.editor.pk and not users.has_every_permission_of(self.editor, user):
            raise forms.ValidationError(
                _("This user has permissions that you don't have. Ask an administrator who has these permissions.")
            )
        return user

    def clean(self) -> dict[str, Any]:
        """Refuse a privileged user until the administrator selects the checkbox beside the warnings.

        If neither the application nor the user was changed, no confirmation is needed.
        """
        cleaned = super().clean() or {}
        user = cleaned.get("user")
        if user is None or not {"application", "user"}.intersection(self.changed_data):
            return cleaned
        warnings = describe_privileges(user)
        if warnings and cleaned.get(_CONFIRMATION) != str(user.pk):
            self.fields[_CONFIRMATION].widget = _ConfirmationBox(user)
            self.add_error(
                _CONFIRMATION,
                [*warnings, gettext("To bind the application to this user, select the checkbox and save again.")],
            )
        return cleaned


class _SearchBox(AutocompleteSelect):
    """A search box with a placeholder. `search_box.js` gives the box a name for screen readers."""

    url_name = "%s:instaccess_serviceuser_search"

    @property
    def media(self) -> Any:
        # Name both scripts, so that Django loads the second script after the first script.
        return super().media + forms.Media(js=["admin/js/autocomplete.js", "instaccess/search_box.js"])

    def build_attrs(self, base_attrs: dict[str, Any], extra_attrs: dict[str, Any] | None = None) -> dict[str, Any]:
        return super().build_attrs(base_attrs, extra_attrs) | {"data-placeholder": gettext("Search…")}


class _SearchView(AutocompleteJsonView):
    """Django's search view, which checks the permissions, with a defined order of the results.

    The admin of django-oauth-toolkit defines no order of applications, so the pages of Django's view could repeat or
    omit applications.
    """

    def get_queryset(self) -> QuerySet[Any]:
        rows = super().get_queryset()
        return rows if rows.ordered else rows.order_by("pk")


class _ServiceUserList(ChangeList):
    """A change list that loads the time of the last token of each application on the page."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if "last_token" in self.list_display:
            rows: list[Any] = list(self.result_list)
            last = load_last_issued({row.application.client_id for row in rows})
            for row in rows:
                row.last_issued_at = last.get(row.application.client_id)
            self.result_list = rows


@admin.register(ServiceUser)
class ServiceUserAdmin(DashboardPage, OfferedFiltersAdmin):
    """The admin of service users.

    A service user gives an application all permissions of the chosen user. An editor without these permissions could
    choose an administrator and gain the permissions of this administrator. The editor must therefore have all
    permissions of the chosen user, as for a masquerade. In addition, editors need Django's permission to add, change
    or delete service users. The admin log records each change.
    """

    form = ServiceUserForm
    list_display = ["application", "user", "last_token", "created_cell"]
    list_select_related = ["application", "user"]
    # A page has few rows, because each row needs a search in the audit log.
    list_per_page = 20
    # Without a search box, show ids instead of a menu, because both tables may be large.
    raw_id_fields = ["application", "user"]
    readonly_fields = ["created"]

    class Media:
        css = {"all": ["instaccess/admin.css", "instaccess/lists.css"]}

    def get_urls(self) -> list[URLPattern]:
        search = self.admin_site.admin_view(_SearchView.as_view(admin_site=self.admin_site))
        return [path("search/", search, name="instaccess_serviceuser_search"), *super().get_urls()]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        may_save = self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj)
        confirmation = [_CONFIRMATION] if may_save else []
        return ["application", "user", *confirmation, *(["created"] if obj else [])]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, help_texts=_HELP, **kwargs)
        return type("ServiceUserForm", (form,), {"editor": request.user})

    def get_autocomplete_fields(self, request: HttpRequest) -> list[str]:
        # Decide for each request. With the attribute `autocomplete_fields`, system checks would fail in a project
        # that registers no admin with a search for one of these tables.
        return [name for name in self.raw_id_fields if self._can_search(request, name)]

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs["widget"] = _SearchBox(db_field, self.admin_site, using=kwargs.get("using"))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _ServiceUserList

    def get_list_display(self, request: HttpRequest) -> Any:
        columns = super().get_list_display(request)
        return columns if self._may_view_tokens(request) else [name for name in columns if name != "last_token"]

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, row: ServiceUser) -> str:
        return time_element(row.created_at)

    @admin.display(description=_("created"), ordering="created_at")
    def created_cell(self, row: ServiceUser) -> str:
        return label_cell(gettext("created"), self.created(row))

    @admin.display(description=_("last token"))
    def last_token(self, row: Any) -> str:
        if row.last_issued_at is None:
            return label_cell(gettext("last token"), "-")
        address = reverse("admin:instaccess_issuedtoken_changelist", current_app=self.admin_site.name)
        query = urlencode({"client_id": row.application.client_id})
        link = format_html('<a href="{}?{}">{}</a>', address, query, time_element(row.last_issued_at))
        return label_cell(gettext("last token"), link)

    def _can_search(self, request: HttpRequest, name: str) -> bool:
        """Return whether the user may use the search view for a foreign key. `name` is `user` or `application`."""
        related: Any = ServiceUser._meta.get_field(name).related_model
        page: Any = self.admin_site._registry.get(related)
        return page is not None and bool(page.get_search_fields(request)) and page.has_view_permission(request)

    def _may_view_tokens(self, request: HttpRequest) -> bool:
        page: Any = self.admin_site._registry.get(IssuedToken)
        return page is not None and page.has_view_permission(request)


def describe_privileges(user: Any) -> list[str]:
    """Return warnings about a user whose permissions an application should not get. Returns [] for other users."""
    warnings = []
    if getattr(user, "is_superuser", False):
        warnings.append(gettext("This user is a superuser, so the application gets every permission."))
    elif getattr(user, "is_staff", False):
        warnings.append(gettext("This user is staff, so services may treat the application as an administrator."))
    if not user.is_active:
        # Django reports no permissions for an inactive user, so the warning below would not appear.
        warnings.append(gettext("This user is inactive, so the permissions of this user can't be checked."))
    if not getattr(user, "is_superuser", False) and (names := _find_privileged_permissions(user)):
        listed = ", ".join(names[:MAX_NAMED]) + (", …" if len(names) > MAX_NAMED else "")
        warnings.append(gettext("This user has privileged permissions: %(permissions)s.") % {"permissions": listed})
    return warnings


def _find_privileged_permissions(user: Any) -> list[str]:
    """Return a user's permissions in the apps of users, groups, applications and tokens, except view permissions."""
    if not hasattr(user, "get_all_permissions"):  # Some custom user models don't implement permissions.
        return []
    models = (get_user_model(), get_application_model())
    labels = {"auth", "instaccess", "oauth2_provider", *(model._meta.app_label for model in models)}
    names = (str(name).partition(".") for name in user.get_all_permissions())
    return sorted(
        f"{label}.{codename}" for label, _dot, codename in names if label in labels and codename[:5] != "view_"
    )


def load_last_issued(client_ids: set[str]) -> dict[str, datetime]:
    """Return the time of the last token of each application, by client id. Applications without tokens are omitted.

    Runs one query, which reads one row per application from the index on client id and time. A query with GROUP BY
    would read all audit rows of the applications.
    """
    ordered = sorted(client_ids - {""})
    if not ordered:
        return {}
    last = [Subquery(_last_issued(audit.fit(client_id, "client_id"))) for client_id in ordered]
    # The outer query reads only the latest audit row. If there is no audit row, no token was issued.
    times = IssuedToken._default_manager.order_by("-issued_at").values_list(*last)[:1].first() or ()
    return {client_id: time for client_id, time in zip(ordered, times, strict=False) if time is not None}


def _last_issued(client_id: str) -> QuerySet[Any]:
    # Compare with a range, and order by both columns, so that PostgreSQL uses the index on both columns. With `=`,
    # PostgreSQL may scan the index on `issued_at`. If the application got its last token long ago, such a scan reads
    # most of the table.
    rows = IssuedToken._default_manager.filter(client_id__gte=client_id, client_id__lte=client_id)
    return rows.order_by("-client_id", "-issued_at").values("issued_at")[:1]
