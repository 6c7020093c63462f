"""Forward authentication: a reverse proxy asks whether a request may pass (`docs/wire-contract.md` §3).

The view works with nginx `auth_request`, Caddy `forward_auth`, Traefik ForwardAuth and Envoy HTTP ext_authz. The view
accepts every method and answers 204, 401 or 503. The answer depends on no header except Authorization.
"""

from __future__ import annotations

import string
import time

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.debug import sensitive_variables

from .. import tokens, trust, web
from ..conf import KEEPING_SLACK, conf
from ..exceptions import InstAccessError, InvalidToken, Reason
from ..logs import get_logger
from ..opaque import Opaque
from ..web import isolated_view
from . import unwrapping

logger = get_logger("instaccess.gateway")

# A bearer token consists of these characters, and can end with `=` (RFC 6750 §2.1). Servers join two Authorization
# headers with a comma. A comma is not among these characters, so a request with two Authorization headers is refused.
_B64TOKEN = (string.ascii_letters + string.digits + "-._~+/").encode()

_token_cache = unwrapping.TokenCache()


def clear_caches() -> None:
    """Clear this process's cache of unwrapped tokens and its deny list. Tests call this function."""
    _token_cache.clear()
    trust.clear_deny_list()


def verify_view(request: HttpRequest) -> HttpResponseBase:
    """Decide whether a reverse proxy may forward a request.

    Answers 204 with the Authorization header for the upstream service, 401 if the token is refused, or 503 after a
    server-side error.
    """
    started = web.metrics.clock()
    refusal: web.Refusal | None = None
    fault: web.Fault | None = None
    known = {"jti": "", "user_uuid": "", "client_id": ""}
    kept = False
    # Set the content type, because Django would otherwise build a content type from its settings for each response,
    # which takes longer.
    response = HttpResponse(status=204, content_type="text/plain")
    try:
        # Pass the token as an opaque object. Loading keys can log a warning, and some error reporters then print the
        # local variables of all calling functions.
        kept = _let_pass(response, _bearer_token(request))
    except InvalidToken as error:
        logger.warning(
            "refused reason=%(reason)s jti=%(jti)r detail=%(detail)r",
            reason=error.code,
            jti=error.jti,
            detail=error.detail,
            user_uuid=error.user_uuid,
            client_id=error.client_id,
            ip_address=web.client_address_or_none(request),
        )
        web.refusal_counter.count("gateway", error.code, client_id=error.client_id, user_uuid=error.user_uuid)
        refusal = web.InvalidAccessToken(code=error.code)
        known = {"jti": error.jti, "user_uuid": error.user_uuid, "client_id": error.client_id}
    except Exception as error:
        # An unexpected error must never let a request pass.
        fault = web.Fault.of("the gateway could not check the token", error)
    if fault is not None:
        # Log after the `except` block. Within the block, log handlers could reach the exception, whose frames contain
        # the token.
        is_logged = fault.log(logger)
        web.refusal_counter.count("gateway", fault.reason)
        refusal = web.Unavailable(code=fault.reason)
    if refusal is not None:
        response = _refusal_response(refusal)
        web.announce_refusal("gateway", refusal.code, status=response.status_code, request=request, **known)
        if fault is not None and not is_logged:
            web.skip_request_log(response)
    if not kept:
        response["Cache-Control"] = "no-store"
    web.metrics.decided(response.status_code, started)
    return response


def _refusal_response(refusal: web.Refusal) -> HttpResponse:
    try:
        return refusal.to_response()
    except InstAccessError as error:  # The refusal contains REALM, which may be invalid.
        logger.error(
            "the gateway could not build the refusal (%(error)s): %(detail)s",
            error=type(error).__name__,
            reason=error.code,
            detail=str(error),
        )
        return web.Unavailable(code=error.code).to_response()


@sensitive_variables("header", "token", "body")
def _bearer_token(request: HttpRequest) -> Opaque[str]:
    """Return the bearer token of the Authorization header.

    Raises InvalidToken if there is no token or more than one token, or if the header is malformed.
    """
    header: str = request.META.get("HTTP_AUTHORIZATION", "").strip(" ")
    if not header:
        raise InvalidToken(code=Reason.NO_CREDENTIALS)
    scheme, _, token = header.partition(" ")
    token = token.lstrip(" ")
    body = token.rstrip("=")
    # `bytes.translate` is ten times as fast as a regular expression for a long token.
    if scheme.lower() != "bearer" or not body or not body.isascii() or body.encode().translate(None, _B64TOKEN):
        raise InvalidToken("the header does not contain exactly one bearer token", code=Reason.MALFORMED_HEADER)
    return Opaque(token)


def _let_pass(response: HttpResponse, token: Opaque[str]) -> bool:
    """Add the Authorization header for the upstream service to the 204 response.

    Returns whether the proxy may keep the response. A response with a bearer token that isn't an InstAccess token is
    never kept, because the gateway can check neither the expiry nor the revocation of such a token.

    Raises InvalidToken if the token is refused.
    """
    if token.reveal().count(".") != 4:
        response["Authorization"] = f"Bearer {_allow_other_bearer(token.reveal())}"
        return False
    unwrapped = unwrapping.unwrap_with_settings(token, now=time.time(), cache=_token_cache)
    kept = False
    if seconds := conf.keep_decision_seconds:
        # Read the clock again, because the gateway may have waited for the keys.
        remaining = int(unwrapped.claims.expires_at - time.time())
        kept = _allow_keeping(response, min(seconds, remaining - KEEPING_SLACK))
    response["Authorization"] = f"Bearer {unwrapped.signed}"
    return kept


def _allow_keeping(response: HttpResponse, seconds: int) -> bool:
    """Allow a proxy to keep a 204 for `seconds`. Returns False and changes nothing if `seconds` isn't positive.

    The URL is the same for all users. A cache that stores one response per URL would therefore give one user the
    identity of another user. `private` forbids shared caches to store the response (RFC 9111 §3.5 and §5.2.2.7), and
    `Vary` makes the Authorization header a part of every cache key. `must-revalidate` forbids caches to use the
    response after `max-age`, even if the gateway is unavailable. nginx prefers X-Accel-Expires to Cache-Control.
    """
    if seconds <= 0:
        return False
    # nginx before 1.23 ignores an X-Accel-Expires header that comes after `Cache-Control: private`.
    response["X-Accel-Expires"] = str(seconds)
    response["Cache-Control"] = f"private, max-age={seconds}, must-revalidate"
    response["Vary"] = "Authorization"
    return True


@sensitive_variables("token")
def _allow_other_bearer(token: str) -> str:
    """Return a bearer token that isn't an InstAccess token, unchanged, if OTHER_BEARERS is `pass`.

    A signed InstAccess token is always refused, because clients must send the encrypted token. A token with three
    segments whose issuer can't be read is refused too, because a lenient service could accept the token as an
    InstAccess token.

    Raises InvalidToken if the token is refused.
    """
    if token.count(".") == 2 and tokens.peek_issuer(token) in (None, *conf.accepted_issuers):
        raise InvalidToken("the token is signed, but not encrypted", code=Reason.ALREADY_DECRYPTED)
    if len(token) > tokens.MAX_TOKEN_CHARS:
        raise InvalidToken(f"the token is longer than {tokens.MAX_TOKEN_CHARS} characters", code=Reason.TOO_LONG)
    if conf.other_bearers != "pass":
        raise InvalidToken("the bearer token is not an InstAccess token", code=Reason.OTHER_BEARER)
    return token


verify = isolated_view(verify_view)
