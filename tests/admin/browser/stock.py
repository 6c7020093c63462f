"""URLs of an admin with nothing of ours in it but a model: what axe finds here is Django's."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from instaccess.models import IssuedToken

site = admin.AdminSite()


@admin.register(IssuedToken, site=site)
class StockAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    change_list_template = "admin/change_list.html"  # or ours would be found by its name
    list_display = ["jti", "canvas_domain"]
    search_fields = ["canvas_domain"]
    search_help_text = "A host."
    # As ours, whose table is too large to be counted.
    show_full_result_count = False


urlpatterns = [path("admin/", site.urls)]
