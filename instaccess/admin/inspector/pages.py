"""The page of the inspector, where users paste a token and read why the token is accepted or refused.

The page needs a separate permission. The browser sends the token in a POST request, and the view removes the token
from the request before the inspection. The token never appears in a response, a log, a session or an error report.
The page writes nothing to the database.
"""

from __future__ import annotations

import time
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from ... import users, web
from ...logs import get_logger
from ...models import IssuedToken
from ..common import ReadOnlyAdmin, take_form
from ..forms import InspectForm
from . import verdict
from .verdict import Inspection

logger = get_logger("instaccess.inspector")


class InspectorPages(ReadOnlyAdmin):
    """The admin page of the inspector. Users don't need the permission to view the audit log."""

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(self.inspect_view)

        @web.takes_secrets
        def drop_query(request: HttpRequest) -> HttpResponseBase:
            # Remove the query string before the login check. The login check copies the query string, which may
            # contain a token, into the `next` parameter of the login page.
            if request.META.get("QUERY_STRING"):
                return HttpResponseRedirect(request.path)
            response: HttpResponseBase = page(request)
            return response

        return [path("inspect/", drop_query, name="instaccess_issuedtoken_inspect"), *super().get_urls()]

    def has_inspect_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may inspect tokens. The user doesn't need the permission to view the audit log."""
        return request.user.has_perm("instaccess.inspect_tokens")

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        # Users who may only inspect tokens get the view permission here, because the admin index shows a link only
        # to users with a permission. `changelist_view` redirects these users to the inspector.
        perms = super().get_model_perms(request)
        return perms | {"view": perms["view"] or self.has_inspect_permission(request)}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if not self.has_view_permission(request) and self.has_inspect_permission(request):
            return HttpResponseRedirect(self._url())
        return super().changelist_view(request, extra_context)

    def inspect_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_inspect_permission(request):
            raise PermissionDenied
        if request.method not in {"GET", "HEAD", "POST"}:
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        inspection = _inspect_request(request) if request.method == "POST" else None
        row = inspection.audit.row if inspection is not None and inspection.audit is not None else None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Inspect a token"),
            "subtitle": inspection.outcome.value if inspection else None,
            "form": InspectForm(),
            "address": self._url(),
            "inspection": inspection,
            **(_get_names(row) if row is not None else {}),
            "may_view_tokens": self.has_view_permission(request),
            "may_view_keys": request.user.has_perm("instaccess.view_key"),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/instaccess/issuedtoken/inspect.html", context)

    def _url(self) -> str:
        return reverse("admin:instaccess_issuedtoken_inspect", current_app=self.admin_site.name)


def _get_names(row: IssuedToken) -> dict[str, str]:
    """Return the names of the users and of the application in an audit row, for the template.

    The HMAC of the row does not cover the foreign keys. If a foreign key does not match the uuid or client id in the
    row, this function returns the uuid or client id instead of the name.
    """
    application: Any = row.application
    matches = application is not None and application.client_id == row.client_id
    return {
        "subject": users.display_name(row.user, row.user_uuid) or row.user_uuid,
        "real_subject": users.display_name(row.real_user, row.real_user_uuid) or row.real_user_uuid,
        "application": str(application) if matches else row.client_id or "-",
    }


def _inspect_request(request: HttpRequest) -> Inspection:
    unexpected = ""
    try:
        inspection = verdict.inspect(_take_token(request), now=time.time())
    except Exception as error:
        # Keep a description instead of the exception. Error reporters and the debug page show the local variables of
        # the exception's frames, and a variable can contain the token.
        unexpected = web.describe_unexpected(error)
    if unexpected:
        # Log after the `except` block. If a log handler failed within the block, the traceback of the failure would
        # contain the message of `error`. This message can contain the token.
        logger.error("the inspector could not check the token: %(detail)s", detail=unexpected)
        return verdict.failed()
    logger.info(
        "inspected kind=%(kind)s verdict=%(verdict)s reason=%(reason)s jti=%(jti)s by=%(by)s",
        kind=inspection.kind.name,
        verdict=inspection.outcome.name,
        reason=inspection.code,
        jti=inspection.jti,
        by=request.user.pk,
    )
    return inspection


@sensitive_variables()
def _take_token(request: HttpRequest) -> str:
    """Return the pasted text, and remove it from the request, so that later error reports don't contain the text."""
    form, _files = take_form(request)
    return form.get("token", "")
