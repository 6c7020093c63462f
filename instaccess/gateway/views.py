"""Forward auth: a reverse proxy asks here whether a request may pass, and with which Authorization (contract §3).

nginx `auth_request`, Caddy `forward_auth`, Traefik ForwardAuth, Envoy HTTP ext_authz. Any method; only the
Authorization header is read, and nothing but 204, 401 and 503 comes out.
"""

from __future__ import annotations

import logging
import string
import time
import traceback

from django.db import Error as DbError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.debug import sensitive_variables

from .. import tokens, trust, web
from ..conf import conf
from ..exceptions import InstAccessError, InvalidToken, Reason
from ..web import isolated_view
from . import unwrapping

logger = logging.getLogger("instaccess.gateway")

# What a token is made of (RFC 6750 §2.1), before any `=`. A server that got two Authorization headers joins them with
# a comma, and that is none of it.
_B64TOKEN = (string.ascii_letters + string.digits + "-._~+/").encode()

_remembered = unwrapping.TokenCache()


def clear_caches() -> None:
    """Drop the opened tokens, the deny list: for tests, and for whoever wants a clean start."""
    _remembered.clear()
    trust.clear_deny_list()


@sensitive_variables("bearer")
def verify_view(request: HttpRequest) -> HttpResponseBase:
    """204 with the Authorization for upstream, 401, or 503."""
    refused: web.Refusal | None = None
    failure, frames = "", ""
    try:
        bearer = _bearer(request)
        # With a type of its own: for one with a charset Django asks its settings.
        response = HttpResponse(status=204, content_type="text/plain")
        response["Authorization"] = f"Bearer {_authorized(bearer)}"
    except InvalidToken as refusal:
        logger.warning("refused reason=%s jti=%r detail=%r", refusal.code, refusal.jti, refusal.detail)
        web.refusal_counter.count("gateway", refusal.code, client_id=refusal.client_id, user_uuid=refusal.user_uuid)
        refused = web.InvalidAccessToken(code=refusal.code)
    except (DbError, InstAccessError) as error:
        logger.error("not decided: %s: %s", type(error).__name__, error)
        web.refusal_counter.count("gateway", error.code if isinstance(error, InstAccessError) else Reason.FAULT)
        refused = web.Unavailable(code=Reason.FAULT)
    except Exception as error:
        # Fail closed, and in text: error reporters read the variables of the frames behind an exception.
        failure, frames = type(error).__name__, "".join(traceback.format_tb(error.__traceback__)).rstrip()
        refused = web.Unavailable(code=Reason.FAULT)
    if failure:
        # Not while it is handled: whatever fails in a log handler would carry it along, message and all.
        logger.error("not decided: %s\n%s", failure, frames)
        web.refusal_counter.count("gateway", Reason.FAULT)
    if refused is not None:
        response = _told(refused)
    response["Cache-Control"] = "no-store"
    return response


def _told(refused: web.Refusal) -> HttpResponse:
    try:
        return refused.to_response()
    except InstAccessError as error:  # a realm that can't be sent
        logger.error("not decided: %s: %s", type(error).__name__, error)
        return web.Unavailable(code=error.code).to_response()


@sensitive_variables("header", "bearer", "body")
def _bearer(request: HttpRequest) -> str:
    header: str = request.META.get("HTTP_AUTHORIZATION", "").strip(" ")
    if not header:
        raise InvalidToken(code=Reason.NO_CREDENTIALS)
    scheme, _, bearer = header.partition(" ")
    bearer = bearer.lstrip(" ")
    body = bearer.rstrip("=")
    # A regular expression takes ten times as long for a long token.
    if scheme.lower() != "bearer" or not body or not body.isascii() or body.encode().translate(None, _B64TOKEN):
        raise InvalidToken("not exactly one bearer token", code=Reason.MALFORMED_HEADER)
    return bearer


@sensitive_variables("bearer")
def _authorized(bearer: str) -> str:
    """What upstream gets as bearer for this one. Raises InvalidToken."""
    if bearer.count(".") != 4:
        return _passed_on(bearer)
    return unwrapping.unwrap_with_settings(bearer, now=time.time(), remembered=_remembered).signed


@sensitive_variables("bearer")
def _passed_on(bearer: str) -> str:
    """Another kind of bearer, where a setting lets it pass. A decrypted InstAccess token never does: it must not come
    from outside, and neither must anything a lenient reader upstream could take for one."""
    if bearer.count(".") == 2 and tokens.peek_issuer(bearer) in (None, conf.issuer):
        raise InvalidToken("a signed token that is not encrypted", code=Reason.ALREADY_DECRYPTED)
    if len(bearer) > tokens.MAX_TOKEN_CHARS:
        raise InvalidToken(f"longer than {tokens.MAX_TOKEN_CHARS} characters", code=Reason.TOO_LONG)
    if conf.other_bearers != "pass":
        raise InvalidToken("not an InstAccess token", code=Reason.OTHER_BEARER)
    return bearer


verify = isolated_view(verify_view)
