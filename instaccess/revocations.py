"""`GET /internal/services/revocations`: the deny list, for gateways that don't share the issuer's database."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging

from django.db import Error as DbError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from . import trust, web
from .conf import conf
from .exceptions import InstAccessError
from .web import isolated_view

logger = logging.getLogger("instaccess.revocation")


def revocations_view(request: HttpRequest) -> HttpResponseBase:
    """`{"revoked": [jti, …]}`: what is revoked and has not expired, with an ETag. Asked for with one of
    SERVICE_SECRETS as bearer; without any configured, nobody gets it."""
    if request.method not in {"GET", "HEAD"}:
        response = web.MethodNotAllowed(code="method").to_response()
        response["Allow"] = "GET, HEAD"
        return response
    try:
        if not _is_known(request.META.get("HTTP_AUTHORIZATION", "")):
            logger.warning("deny list refused: no bearer, or none of INSTACCESS['SERVICE_SECRETS']")
            return web.InvalidAccessToken(code="service_secret").to_response()
        jtis = sorted(trust.read_deny_list())
    except (DbError, InstAccessError) as error:
        logger.error("no deny list: %s: %s", type(error).__name__, error)
        response = web.Unavailable(code="fault").to_response()
        response["Cache-Control"] = "no-store"
        return response
    body = json.dumps({"revoked": jtis}, separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    response = HttpResponse(body, content_type="application/json; charset=utf-8")
    response["Cache-Control"] = "private, no-cache"
    response["ETag"] = etag
    return get_conditional_response(request, etag=etag, response=response) or response


def _is_known(header: str) -> bool:
    scheme, _, secret = header.partition(" ")
    sent = secret.strip().encode()
    known = False
    for candidate in conf.service_secrets:
        # All are compared, each in constant time: neither which one nor how much of it matched shows.
        known |= hmac.compare_digest(candidate.encode(), sent)
    return known and scheme.lower() == "bearer"


revocations = isolated_view(revocations_view)
