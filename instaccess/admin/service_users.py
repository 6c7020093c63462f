"""The admin page of service users. In the client credentials grant, an application acts as its service user."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import users
from ..models import ServiceUser
from .common import OfferedFiltersAdmin


@admin.register(ServiceUser)
class ServiceUserAdmin(OfferedFiltersAdmin):
    """The admin of service users.

    A service user gives an application all permissions of the chosen user. An editor without these permissions could
    choose an administrator and gain the permissions of this administrator. The editor must therefore have all
    permissions of the chosen user, as for a masquerade. In addition, editors need Django's permission to add, change
    or delete service users. The admin log records each change.
    """

    list_display = ["application", "user", "created_at"]
    list_select_related = ["application", "user"]
    # Show ids instead of a menu, because both tables may be large. An autocomplete field would fail if the project
    # registers no admin for these tables.
    raw_id_fields = ["application", "user"]
    fields = ["application", "user", "created_at"]
    readonly_fields = ["created_at"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)

        class CheckedForm(form):  # type: ignore[misc]
            def clean_user(self) -> Any:
                user = self.cleaned_data["user"]
                if user.pk != request.user.pk and not users.has_every_permission_of(request.user, user):
                    raise forms.ValidationError(
                        _(
                            "This user has permissions that you don't have. Ask an administrator who has these "
                            "permissions."
                        )
                    )
                return user

        return CheckedForm
