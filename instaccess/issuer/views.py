"""The issuing endpoint. Settings of the host project's own API do not reach it, nor do its settings leak out."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.debug import sensitive_variables
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from .. import users, web
from ..conf import conf
from ..exceptions import InstAccessError, MasqueradeRefused, Reason
from ..web import client_address, isolated_view, request_domain
from . import authentication, issuing, parameters, throttling

logger = logging.getLogger("instaccess.issuer")

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


class _AlwaysJSON(BaseContentNegotiation):
    """Clients send every kind of Accept header; none of them changes the answer."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class IssueView(APIView):
    """`POST /api/v1/inst_access_tokens` (contract §1)."""

    authentication_classes = [authentication.AccessTokenAuthentication]
    permission_classes = []
    throttle_classes = []
    renderer_classes = [JSONRenderer]
    parser_classes = []
    content_negotiation_class = _AlwaysJSON
    versioning_class = None
    metadata_class = None
    http_method_names = ["post", "options"]
    domain: str

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Error reports leave out what is marked so, should anything outside this view fail.
        request._request.sensitive_post_parameters = "__ALL__"  # type: ignore[attr-defined]
        if request.method not in {"POST", "OPTIONS"}:
            raise web.MethodNotAllowed(code=Reason.METHOD)
        if request.method == "POST":
            # Raises for a Host that is not ours, before anything is looked up.
            self.domain = request_domain(request._request)
            super().initial(request, *args, **kwargs)

    @sensitive_variables("text")
    def post(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        access_token: Any = request.auth
        caller: Any = request.user
        who = {"user": caller, "client_id": access_token.application.client_id}
        user = caller
        if as_user_id := _parameter(request, "as_user_id").strip():
            try:
                user = users.masquerade_target(caller, as_user_id)
            except MasqueradeRefused as error:
                raise web.InvalidAsUserId(error.detail, code=error.code, **who) from None
        level = throttling.charge(access_token.pk)
        if not level.allowed:
            raise web.Throttled(retry_after=level.retry_after, **who)
        try:
            text = self._issue(request, user, access_token)
        except Exception:
            if level.charged:
                throttling.refund(access_token.pk)
            raise
        response = web.json_response({"token": text}, status=201)
        response["X-Request-Cost"] = str(conf.throttle_cost)
        _tell_level(response, level)
        return response

    @sensitive_variables("text")
    def _issue(self, request: Request, user: Any, access_token: Any) -> str:
        caller: Any = request.user
        unencrypted = (
            conf.allow_unencrypted and settings.DEBUG and _parameter(request, "unencrypted").strip().lower() in _TRUE
        )
        _, text = issuing.issue(
            user=user,
            real_user=None if user is caller else caller,
            application=access_token.application,
            service=access_token.user is None,
            access_token_pk=access_token.pk,
            origin=issuing.Origin(
                canvas_domain=self.domain,
                ip_address=client_address(request._request),
                user_agent=request.META.get("HTTP_USER_AGENT", ""),
            ),
            now=time.time(),
            encrypted=not unencrypted,
        )
        return text

    def options(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        return HttpResponse(status=204, headers={"Allow": "POST, OPTIONS", "X-Request-Cost": "0"})

    def handle_exception(self, exc: Exception) -> HttpResponse:  # type: ignore[override]
        """Every error, expected or not, as one of the contract's answers."""
        refusal = _refusal(exc, self.request)
        if refusal.status < 500:  # a refusal says by itself what was wrong
            logger.warning(
                "refused reason=%s user=%s client_id=%r detail=%r",
                refusal.code,
                getattr(refusal.user, "pk", None),
                refusal.client_id,
                refusal.detail,
            )
        user_uuid = users.loaded_uuid(refusal.user)
        web.refusal_counter.count("issuer", refusal.code, client_id=refusal.client_id, user_uuid=user_uuid)
        try:
            response = refusal.to_response()
            # Set once the caller was authenticated, however it ended after that.
            access_token_pk = refusal.access_token_pk or getattr(getattr(self.request, "_auth", None), "pk", None)
            if access_token_pk is not None:
                _tell_level(response, throttling.peek(access_token_pk))
        except InstAccessError as error:  # a bad setting, such as a realm that can't be sent
            response = _refusal(error, self.request).to_response()
        if refusal.status == 405:
            response["Allow"] = "POST, OPTIONS"
        if not isinstance(refusal, web.Throttled):
            response["X-Request-Cost"] = "0"
        return response

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        self.headers = {}
        answer: HttpResponseBase = super().finalize_response(request, response, *args, **kwargs)
        answer["Cache-Control"] = "no-store"
        return answer


def _refusal(exc: Exception, request: Request) -> web.Refusal:
    if isinstance(exc, web.Refusal):
        return exc
    if isinstance(exc, InstAccessError):
        logger.error("not issued: %s", exc)
        return web.Unavailable(exc.detail, code=exc.code)
    if isinstance(exc, SuspiciousOperation):
        return web.BadRequest(type(exc).__name__, code=Reason.BAD_REQUEST)
    # Text only, no exc_info: error reporters read the variables of the frames behind it, and one is the token.
    logger.error("not issued: %s", _traceback(exc, request))
    return web.Unavailable(type(exc).__name__, code=Reason.FAULT)


def _tell_level(response: HttpResponse, level: throttling.Level) -> None:
    if (remaining := level.remaining) is not None:
        response["X-Rate-Limit-Remaining"] = remaining


def _traceback(exc: Exception, request: Request) -> str:
    """The traceback as text, without the credentials, which may stand in somebody's message."""
    text = "".join(traceback.format_exception(exc)).rstrip()
    credentials = request.META.get("HTTP_AUTHORIZATION", "").split()[1:]
    try:
        if conf.allow_token_in_parameters:
            credentials += [
                parameters.query(request._request).get("access_token"),
                parameters.form(request._request).get("access_token"),
            ]
    except (InstAccessError, SuspiciousOperation):
        # There is no telling what to leave out: where it happened, then, and no message.
        return type(exc).__name__ + "\n" + "".join(traceback.format_tb(exc.__traceback__)).rstrip()
    for credential in filter(None, credentials):
        text = text.replace(credential, "[credential]")
    return text


def _parameter(request: Request, name: str) -> str:
    """A parameter of the query, or of the form where the query has none or a blank one."""
    for read in (parameters.query, parameters.form):
        value = read(request._request).get(name)
        if isinstance(value, str) and value.strip():
            return value
    return ""


issue = isolated_view(IssueView.as_view())
