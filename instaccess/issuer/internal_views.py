"""The issuer's endpoints for gateways and services: the public signing keys and the revocations.

docs/wire-contract.md §3 and §5 define the responses.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

from django.db import Error as DbError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from .. import keys, trust, web
from ..conf import conf
from ..exceptions import InstAccessError, Reason
from ..logs import Logger, get_logger
from ..opaque import concealed

_keys_logger = get_logger("instaccess.keys")
_revocation_logger = get_logger("instaccess.revocation")


def jwks_view(request: HttpRequest) -> HttpResponseBase:
    """Serve `GET /internal/services/jwks`: the future, current and past signing keys as a JWKS (RFC 7517 §5).

    The response is 503 if there is no key or the database is unavailable. If the response were an empty JWKS,
    services would discard their cached keys.
    """
    if request.method not in _METHODS:
        return _method_not_allowed()
    try:
        published = keys.current_ring().published()
        max_age = conf.jwks_max_age
    except (DbError, InstAccessError) as error:
        return _unavailable(web.Fault.of("the issuer could not return the JWKS", error), _keys_logger)
    if not published:
        _keys_logger.error(
            "the issuer could not return the JWKS, because there is no signing key; run `python manage.py "
            "instaccess_init`",
            reason=Reason.NO_KEY,
        )
        return _unavailable()
    return _document(request, {"keys": published}, cache_control=f"public, max-age={max_age}")


def revocations_view(request: HttpRequest) -> HttpResponseBase:
    """Serve `GET /internal/services/revocations`: the revoked tokens, users, accounts and keys.

    If the query parameter `since` contains a position, the response contains one page of the revocations after this
    position, and the next position. If the query has no `since`, the response contains all revocations.

    The client must send one of SERVICE_SECRETS as the bearer token. If no secret is configured, all clients are
    refused.
    """
    if request.method not in _METHODS:
        return _method_not_allowed()
    try:
        if not _is_service_secret(request.META.get("HTTP_AUTHORIZATION", "")):
            _revocation_logger.warning(
                "the issuer refused to return the revocation list, because the bearer token is missing or not in "
                "INSTACCESS['SERVICE_SECRETS']",
                reason=Reason.SERVICE_SECRET,
                ip_address=web.client_address_or_none(request),
            )
            return web.InvalidAccessToken(code=Reason.SERVICE_SECRET).to_response()
        since = request.GET.get("since")
        page = _all_revocations() if since is None else trust.read_revocations(since)
    except (DbError, InstAccessError) as error:
        fault = web.Fault.of("the issuer could not return the revocation list", error)
        return _unavailable(fault, _revocation_logger)
    if page.position_lost:
        _revocation_logger.error(
            "a gateway has read revocations that this database doesn't contain: %(detail)s",
            detail=trust.RESTORED,
            ip_address=web.client_address_or_none(request),
        )
    document = {
        "revoked": sorted(page.tokens),
        "revoked_keys": sorted(page.keys),
        "revoked_users": page.users,
        "revoked_accounts": page.accounts,
        "revoked_until": page.all_until,
        "cursor": page.cursor,
        "more": page.more,
        "position_lost": page.position_lost,
    }
    return _document(request, document, cache_control="private, no-cache")


def _all_revocations() -> trust.Page:
    """Return all revocations as one page."""
    pages = [trust.read_revocations()]
    while pages[-1].more:
        pages.append(trust.read_revocations(pages[-1].cursor))
    tokens = [jti for page in pages for jti in page.tokens]
    # Only the last page contains users, accounts and keys.
    return replace(pages[-1], tokens=tokens)


_METHODS = ("GET", "HEAD")


def _method_not_allowed() -> HttpResponse:
    response = web.MethodNotAllowed(code=Reason.METHOD).to_response()
    response["Allow"] = ", ".join(_METHODS)
    return response


def _unavailable(fault: web.Fault | None = None, logger: Logger = _keys_logger) -> HttpResponse:
    """Return the 503 response to a server-side error. If `fault` is given, log the error first."""
    response = web.Unavailable(code=Reason.FAULT).to_response()
    if fault is not None and not fault.log(logger):
        web.skip_request_log(response)
    response["Cache-Control"] = "no-store"
    return response


def _document(request: HttpRequest, document: dict[str, Any], *, cache_control: str) -> HttpResponseBase:
    """Build a JSON response with an ETag, or a 304 response if the client's ETag matches (RFC 9110 §13.1.2)."""
    body = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    response = HttpResponse(body, content_type="application/json; charset=utf-8")
    response["Cache-Control"] = cache_control
    response["ETag"] = etag
    return get_conditional_response(request, etag=etag, response=response) or response


@concealed
def _is_service_secret(header: str) -> bool:
    """Return whether an Authorization header contains one of SERVICE_SECRETS as the bearer token."""
    scheme, _, secret = header.partition(" ")
    sent = secret.strip().encode()
    matches = False
    for candidate in conf.service_secrets:
        # Compare all secrets, each in constant time. The response time then reveals neither which secret matched nor
        # how many characters matched.
        matches |= hmac.compare_digest(candidate.reveal().encode(), sent)
    return matches and scheme.lower() == "bearer"


jwks = web.isolated_view(jwks_view)
revocations = web.isolated_view(revocations_view)
