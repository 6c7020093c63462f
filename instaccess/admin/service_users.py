"""Service users: which OAuth2 application acts as whom when it comes for itself."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import users
from ..models import ServiceUser


@admin.register(ServiceUser)
class ServiceUserAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Whoever binds an application to a user gives it all that user's rights. So they must have those rights
    themselves, as for a masquerade, or nobody would need to be an administrator to become one. Besides, Django's own
    permissions to add, change and delete apply, and its log of changes tells who did."""

    list_display = ["application", "user", "created_at"]
    list_select_related = ["application", "user"]
    # Both tables may be large, and neither's own admin need be there.
    raw_id_fields = ["application", "user"]
    fields = ["application", "user", "created_at"]
    readonly_fields = ["created_at"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)

        class Checked(form):  # type: ignore[misc]
            def clean_user(self) -> Any:
                user = self.cleaned_data["user"]
                if user.pk != request.user.pk and not users.holds_no_more_than(user, request.user):
                    raise forms.ValidationError(_("This user may do what you may not: ask somebody who may."))
                return user

        return Checked
