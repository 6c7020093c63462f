"""URLs of an admin with Django's own templates: all accessibility violations here are Django's."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from instaccess.models import IssuedToken

site = admin.AdminSite()


@admin.register(IssuedToken, site=site)
class StockAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    # Without this line, Django would find this package's template, which has the same name.
    change_list_template = "admin/change_list.html"
    list_display = ["jti", "canvas_domain"]
    search_fields = ["canvas_domain"]
    search_help_text = "A host."
    # Do not count all rows, because this package's list does not count all rows either.
    show_full_result_count = False


urlpatterns = [path("admin/", site.urls)]
