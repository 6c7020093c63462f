"""The inspector: paste a token, and read why it is accepted or refused.

It has a permission of its own. What is pasted comes by POST only, is taken out of the request before anything is done
with it, and is in no answer, no log, no session and no error report. Nothing is written.
"""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, QueryDict
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from ... import users
from ...models import IssuedToken
from ..common import ReadOnlyAdmin
from ..forms import InspectForm
from . import verdict
from .verdict import Inspection

logger = logging.getLogger("instaccess.inspector")


class InspectorPages(ReadOnlyAdmin):
    """The page, and the way to it for whoever may inspect tokens and not see the audit."""

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(self.inspect_view)

        @sensitive_post_parameters()
        def clean(request: HttpRequest) -> HttpResponseBase:
            # Before anything else, signing in included: that would carry the query along.
            if request.META.get("QUERY_STRING"):
                return HttpResponseRedirect(request.path)
            answer: HttpResponseBase = page(request)
            return answer

        return [path("inspect/", clean, name="instaccess_issuedtoken_inspect"), *super().get_urls()]

    def has_inspect_permission(self, request: HttpRequest) -> bool:
        """May inspect tokens. Seeing the audit is another permission."""
        return request.user.has_perm("instaccess.inspect_tokens")

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        # The list of models asks this whether to link here; `changelist_view` sends people on.
        perms = super().get_model_perms(request)
        return perms | {"view": perms["view"] or self.has_inspect_permission(request)}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if not self.has_view_permission(request) and self.has_inspect_permission(request):
            return HttpResponseRedirect(self._address())
        return super().changelist_view(request, extra_context)

    def inspect_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_inspect_permission(request):
            raise PermissionDenied
        if request.method not in {"GET", "HEAD", "POST"}:
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        found = _inspected(request) if request.method == "POST" else None
        row = found.audit.row if found is not None and found.audit is not None else None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Inspect a token"),
            "subtitle": found.outcome.value if found else None,
            "form": InspectForm(),
            "address": self._address(),
            "found": found,
            **(_named(row) if row is not None else {}),
            "may_view_tokens": self.has_view_permission(request),
            "may_view_keys": request.user.has_perm("instaccess.view_key"),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/instaccess/issuedtoken/inspect.html", context)

    def _address(self) -> str:
        return reverse("admin:instaccess_issuedtoken_inspect", current_app=self.admin_site.name)


def _named(row: IssuedToken) -> dict[str, str]:
    """Users and application by name where the references are to those whom the row names: no HMAC covers those."""
    application: Any = row.application
    its_own = application is not None and application.client_id == row.client_id
    return {
        "subject": users.display_name(row.user, row.user_uuid) or row.user_uuid,
        "real_subject": users.display_name(row.real_user, row.real_user_uuid) or row.real_user_uuid,
        "application": str(application) if its_own else row.client_id or "-",
    }


def _inspected(request: HttpRequest) -> Inspection:
    failure, frames = "", ""
    try:
        found = verdict.inspect(_taken_from(request), now=time.time())
    except Exception as error:
        # In text: error reporters, and the debug page, show the variables of the frames behind an exception.
        failure, frames = type(error).__name__, "".join(traceback.format_tb(error.__traceback__)).rstrip()
    if failure:
        # Not while it is handled: whatever fails in a log handler would carry it along, message and all.
        logger.error("not inspected: %s\n%s", failure, frames)
        return verdict.failed()
    logger.info(
        "inspected kind=%s verdict=%s reason=%s jti=%s by=%s",
        found.kind.name,
        found.outcome.name,
        found.code,
        found.jti,
        request.user.pk,
    )
    return found


@sensitive_variables()
def _taken_from(request: HttpRequest) -> str:
    """The pasted text, which the request then does not hold any more: what fails later can't show it."""
    text: str = request.POST.get("token", "")
    request.POST = QueryDict()
    request._body = b""  # where Django keeps what a form was read from
    return text
