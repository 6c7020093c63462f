"""`GET /internal/services/jwks`: the public signing keys, for services elsewhere (contract §5, RFC 7517 §5)."""

from __future__ import annotations

import hashlib
import json
import logging

from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from . import web
from .conf import conf
from .exceptions import InstAccessError
from .keys import current_ring
from .web import isolated_view

logger = logging.getLogger("instaccess.keys")


def jwks_view(request: HttpRequest) -> HttpResponseBase:
    """Future, current and past signing keys, each with `use`, `alg` and `kid`; an ETag and how long to keep them.

    Without a key, or a database to read it from, 503: an empty set would tell services to forget what they have.
    """
    if request.method not in {"GET", "HEAD"}:
        response = web.MethodNotAllowed(code="method").to_response()
        response["Allow"] = "GET, HEAD"
        return response
    try:
        keys = current_ring().published()
        max_age = conf.jwks_max_age
    except (Error, InstAccessError) as error:
        return _unavailable(f"{type(error).__name__}: {error}")
    if not keys:
        return _unavailable("there is no signing key: run `python manage.py instaccess_init`")
    body = json.dumps({"keys": keys}, separators=(",", ":"), sort_keys=True).encode()
    response = HttpResponse(body, content_type="application/json; charset=utf-8")
    response["Cache-Control"] = f"public, max-age={max_age}"
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    response["ETag"] = etag
    return get_conditional_response(request, etag=etag, response=response) or response


def _unavailable(reason: str) -> HttpResponse:
    logger.error("no JWKS: %s", reason)
    response = web.Unavailable(code="no_key").to_response()
    response["Cache-Control"] = "no-store"
    return response


jwks = isolated_view(jwks_view)
