"""The URLs of an admin site that uses only Django's own templates.

test_harness.py finds Django's accessibility violations on this site.
"""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from instaccess.models import IssuedToken

site = admin.AdminSite()


@admin.register(IssuedToken, site=site)
class StockAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    # Set the template explicitly, because Django would use the template of `instaccess` by default.
    change_list_template = "admin/change_list.html"
    list_display = ["jti", "canvas_domain"]
    search_fields = ["canvas_domain"]
    search_help_text = "A host."
    # Don't count all rows, because the list of issued tokens in `instaccess` doesn't count all rows either.
    show_full_result_count = False


urlpatterns = [path("admin/", site.urls)]
