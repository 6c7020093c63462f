"""The template tag that builds the dashboard of the app.

Django imports this file in every project, even if the project has no admin. The file therefore imports neither the
models nor the package `admin`, and finds the admin pages of the app in the admin site of the request.
"""

from __future__ import annotations

from typing import Any

from django import template
from django.apps import apps
from django.template import Context

register = template.Library()


@register.simple_tag(takes_context=True)
def instaccess_dashboard(context: Context) -> Any:
    """Return the dashboard for the user of the request.

    Returns None if the request is not for an admin page, or if the admin site has none of this app's admin pages.
    """
    request: Any = context.get("request")
    match = getattr(request, "resolver_match", None)
    # Use the admin site of the view, because a project can have several admin sites. Django's AdminSite sets the
    # attribute for each view.
    site: Any = getattr(match and match.func, "admin_site", None)
    if site is None:
        return None
    for model in apps.get_app_config("instaccess").get_models():
        page = site.get_model_admin(model) if site.is_registered(model) else None
        if build := getattr(page, "build_dashboard", None):
            return build(request)
    return None
