"""Service users: which OAuth2 application acts as whom when it comes for itself."""

from __future__ import annotations

from django.contrib import admin

from ..models import ServiceUser


@admin.register(ServiceUser)
class ServiceUserAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Whoever may bind an application to a user gives it all that user's rights: Django's own permissions to add,
    change and delete apply, and its log of changes tells who did."""

    list_display = ["application", "user", "created_at"]
    list_select_related = ["application", "user"]
    # Both tables may be large, and neither's own admin need be there.
    raw_id_fields = ["application", "user"]
    fields = ["application", "user", "created_at"]
    readonly_fields = ["created_at"]
