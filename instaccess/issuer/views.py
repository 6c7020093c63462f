"""The issuing endpoint. The view ignores the project's settings for Django REST framework."""

from __future__ import annotations

import time
import traceback
from typing import Any

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.debug import sensitive_variables
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from .. import database_errors, users, web
from ..conf import conf
from ..exceptions import InstAccessError, MasqueradeRefused, Reason
from ..logs import get_logger
from ..web import client_address, isolated_view, request_domain
from . import authentication, issuing, parameters, throttling

logger = get_logger("instaccess.issuer")

_FAULT = "the issuer could not issue a token"
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


class _AlwaysJSON(BaseContentNegotiation):
    """Content negotiation that ignores the Accept header, as Canvas does."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class IssueView(APIView):
    """The view for `POST /api/v1/inst_access_tokens` (docs/wire-contract.md §1)."""

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
    started: float
    fault: web.Fault | None = None
    """A server-side error, or None. The error is logged after the `except` block has ended."""
    refused: dict[str, Any] | None = None
    """The arguments of the signal about a refusal, or None. The signal is sent after the `except` block has ended."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the method and the host, then authenticate the client.

        Raises:
            Refusal: the method is not allowed, or the credentials are refused.
            SuspiciousOperation: the host is not allowed, or the query has too many parameters.
            InstAccessError, DatabaseError: a server-side error.
        """
        if request.method not in {"POST", "OPTIONS"}:
            raise web.MethodNotAllowed(code=Reason.METHOD)
        if request.method == "POST":
            self.started = web.metrics.clock()
            # Refuse a host that isn't in ALLOWED_HOSTS before any database query runs.
            self.domain = request_domain(request._request)
            started = web.metrics.clock()
            super().initial(request, *args, **kwargs)
            web.metrics.stage("issuer", "lookup", started)

    @sensitive_variables("text")
    def post(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        """Issue a token to an authenticated client, and return the 201 response.

        Raises:
            Refusal: the client is not allowed to get a token.
            SuspiciousOperation: the query has too many parameters.
            InstAccessError, DatabaseError: a server-side error.
        """
        as_user_id = _parameter(request, "as_user_id").strip()
        started = web.metrics.clock()
        level = throttling.charge(request.auth.pk)
        web.metrics.stage("issuer", "throttle", started)
        try:
            user = _subject(request, as_user_id, level)
            text = self._issue(request, user)
        except web.InvalidAsUserId:  # Don't refund the cost, so that a client can't try the ids of many users.
            raise
        except Exception:
            if level.charged:
                throttling.refund(request.auth.pk)
            raise
        response = web.json_response({"token": text}, status=201)
        response["X-Request-Cost"] = str(conf.throttle_cost)
        _set_remaining(response, level)
        web.metrics.issued(self.started)
        return response

    @sensitive_variables("text")
    def _issue(self, request: Request, user: Any) -> str:
        """Issue a token for `user`, and return the token."""
        access_token: Any = request.auth
        _, text = issuing.issue(
            user=user,
            real_user=None if user is request.user else request.user,
            application=access_token.application,
            service=access_token.user is None,
            access_token_pk=access_token.pk,
            origin=issuing.Origin(
                canvas_domain=self.domain,
                ip_address=client_address(request._request),
                user_agent=request.META.get("HTTP_USER_AGENT", ""),
            ),
            now=time.time(),
            encrypted=not _wants_unencrypted(request),
        )
        return text

    def options(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        return HttpResponse(status=204, headers={"Allow": "POST, OPTIONS", "X-Request-Cost": "0"})

    def handle_exception(self, exc: Exception) -> HttpResponse:  # type: ignore[override]
        """Log and count an error, and return the error response (docs/wire-contract.md §1)."""
        refusal = self._to_refusal(exc)
        if refusal.status < 500:  # `finalize_response` logs server-side errors.
            logger.warning(
                "refused reason=%(reason)s user=%(user)s client_id=%(client_id)r detail=%(detail)r",
                reason=refusal.code,
                user=getattr(refusal.user, "pk", None),
                client_id=refusal.client_id,
                detail=refusal.detail,
                ip_address=web.client_address_or_none(self.request._request),
            )
        user_uuid = users.loaded_uuid(refusal.user)
        web.refusal_counter.count("issuer", refusal.code, client_id=refusal.client_id, user_uuid=user_uuid)
        self.refused = {
            "reason": refusal.code,
            "user_id": getattr(refusal.user, "pk", None),
            "user_uuid": user_uuid,
            "client_id": refusal.client_id,
        }
        try:
            response = self._refuse(refusal)
        except InstAccessError as error:  # A setting, such as REALM, is invalid.
            response = self._to_refusal(error).to_response()
        if refusal.status == 405:
            response["Allow"] = "POST, OPTIONS"
        if not isinstance(refusal, web.Throttled):
            response["X-Request-Cost"] = str(refusal.cost)
        return response

    def _refuse(self, refusal: web.Refusal) -> HttpResponse:
        """Build the response to a refused request. Raises ConfigError."""
        response = refusal.to_response()
        # Read `_auth`, which is set only if the client was authenticated before the error. Reading `auth` could start
        # the authentication again.
        access_token_pk = refusal.access_token_pk or getattr(getattr(self.request, "_auth", None), "pk", None)
        if access_token_pk is not None:
            _set_remaining(response, throttling.peek(access_token_pk))
        return response

    def _to_refusal(self, error: Exception) -> web.Refusal:
        """Return the refusal that a client gets for an error. Sets `fault` after a server-side error."""
        if isinstance(error, web.Refusal):
            return error
        if isinstance(error, InstAccessError):
            self.fault = self.fault or web.Fault.of(_FAULT, error, detail=str(error))
            return web.Unavailable(error.detail, code=error.code)
        if isinstance(error, SuspiciousOperation):
            return web.BadRequest(type(error).__name__, code=Reason.BAD_REQUEST)
        self.fault = web.Fault.of(_FAULT, error, detail=_traceback(error, self.request))
        return web.Unavailable(type(error).__name__, code=Reason.FAULT)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        # DRF calls this method after its `except` block. Within the block, log handlers, error reporters and
        # receivers of a signal could reach the exception, whose frames contain the access token.
        if self.fault is not None:
            web.forget_parameters(request._request)
            if not self.fault.log(logger):
                web.skip_request_log(response)
        if self.refused is not None:
            web.announce_refusal("issuer", status=response.status_code, request=request._request, **self.refused)
        # Discard DRF's headers, such as `Vary`, because Canvas does not send them.
        self.headers = {}
        finalized: HttpResponseBase = super().finalize_response(request, response, *args, **kwargs)
        finalized["Cache-Control"] = "no-store"
        return finalized


def _subject(request: Request, as_user_id: str, level: throttling.Level) -> Any:
    """Return the subject of the token: the user with the id `as_user_id`, or the caller if `as_user_id` is blank.

    If the bucket is full, another user is not looked up, so that a client can't try the ids of many users.

    Raises:
        InvalidAsUserId: the caller is not allowed to get a token for the user, or there is no such user.
        Throttled: the bucket of the access token is full.
    """
    caller = request.user
    names_another = bool(as_user_id) and not users.is_own_id(caller, as_user_id)
    try:
        if names_another:
            users.check_may_masquerade(caller)
        if not level.allowed:
            raise web.Throttled(retry_after=level.retry_after, **_client(request))
        return users.masquerade_target(caller, as_user_id) if names_another else caller
    except MasqueradeRefused as error:
        cost = conf.throttle_cost if level.allowed else 0
        raise web.InvalidAsUserId(error.detail, code=error.code, cost=cost, **_client(request)) from None


def _client(request: Request) -> dict[str, Any]:
    """Return the authenticated user and the client id, as keyword arguments of a Refusal."""
    access_token: Any = request.auth
    return {"user": request.user, "client_id": access_token.application.client_id}


def _wants_unencrypted(request: Request) -> bool:
    """Return whether the client requests an unencrypted token and the settings allow unencrypted tokens."""
    if not (conf.allow_unencrypted and settings.DEBUG):
        return False
    return _parameter(request, "unencrypted").strip().lower() in _TRUE


def _set_remaining(response: HttpResponse, level: throttling.Level) -> None:
    if (remaining := level.remaining) is not None:
        response["X-Rate-Limit-Remaining"] = remaining


def _traceback(error: Exception, request: Request) -> str:
    """Format the traceback of an error, and replace the client's credentials, which error messages may contain."""
    text = "".join(traceback.format_exception(error)).rstrip()
    credentials = request.META.get("HTTP_AUTHORIZATION", "").split()[1:]
    try:
        if conf.allow_token_in_parameters:
            credentials += [
                parameters.query(request._request).get("access_token"),
                parameters.form(request._request).get("access_token"),
            ]
    except (InstAccessError, SuspiciousOperation):
        # If the credentials can't be read, they can't be replaced in the text. Return only the class and the stack
        # frames of the error.
        return web.describe_unexpected(error)
    for credential in filter(None, credentials):
        text = text.replace(credential, "[credential]")
    return database_errors.without_passwords(text)


def _parameter(request: Request, name: str) -> str:
    """Return a parameter of the query, or of the form if the query has no such parameter or a blank value.

    Returns "" if the form has no such parameter or a blank value either.
    """
    for read in (parameters.query, parameters.form):
        value = read(request._request).get(name)
        if isinstance(value, str) and value.strip():
            return value
    return ""


# `takes_secrets` removes the query and the form from the request before an error is reported. A client may send an
# access token in the query or the form, even if the settings don't allow this.
_issue = IssueView.as_view()
issue = isolated_view(web.takes_secrets(_issue))


def _issue_at_other_path(request: HttpRequest) -> HttpResponseBase:
    """Issue a token at a second path of the endpoint.

    This function has no attribute `cls`, so that generators of OpenAPI schemas list the endpoint only once.
    """
    return _issue(request)


issue_at_other_path = isolated_view(web.takes_secrets(_issue_at_other_path))

web.load_openapi("instaccess.issuer.openapi")
