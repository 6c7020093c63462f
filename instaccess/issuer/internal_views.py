"""What the issuer tells gateways and services: the public signing keys and the deny list (contract §3 and §5)."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from typing import Any

from django.db import Error as DbError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from .. import keys, trust, web
from ..conf import conf
from ..exceptions import InstAccessError, Reason

_keys_logger = logging.getLogger("instaccess.keys")
_revocation_logger = logging.getLogger("instaccess.revocation")


def jwks_view(request: HttpRequest) -> HttpResponseBase:
    """`GET /internal/services/jwks`: future, current and past signing keys (RFC 7517 §5), with `use`, `alg`, `kid`.

    Answers 503 without a key, or without a database to read it from: an empty set would tell services to forget the
    keys they have.
    """
    if request.method not in _METHODS:
        return _method_not_allowed()
    try:
        published = keys.current_ring().published()
        max_age = conf.jwks_max_age
    except (DbError, InstAccessError) as error:
        _keys_logger.error("no JWKS: %s: %s", type(error).__name__, error)
        return _unavailable()
    if not published:
        _keys_logger.error("no JWKS: there is no signing key: run `python manage.py instaccess_init`")
        return _unavailable()
    return _document(request, {"keys": published}, cache_control=f"public, max-age={max_age}")


def revocations_view(request: HttpRequest) -> HttpResponseBase:
    """`GET /internal/services/revocations`: `{"revoked": [jti, …]}`, the revoked tokens that have not expired.

    The caller sends one of SERVICE_SECRETS as its bearer token. Without any configured secret, every caller is
    refused.
    """
    if request.method not in _METHODS:
        return _method_not_allowed()
    try:
        if not _is_known(request.META.get("HTTP_AUTHORIZATION", "")):
            _revocation_logger.warning("deny list refused: no bearer, or none of INSTACCESS['SERVICE_SECRETS']")
            return web.InvalidAccessToken(code=Reason.SERVICE_SECRET).to_response()
        jtis = sorted(trust.read_deny_list())
    except (DbError, InstAccessError) as error:
        _revocation_logger.error("no deny list: %s: %s", type(error).__name__, error)
        return _unavailable()
    return _document(request, {"revoked": jtis}, cache_control="private, no-cache")


_METHODS = ("GET", "HEAD")


def _method_not_allowed() -> HttpResponse:
    response = web.MethodNotAllowed(code=Reason.METHOD).to_response()
    response["Allow"] = ", ".join(_METHODS)
    return response


def _unavailable() -> HttpResponse:
    response = web.Unavailable(code=Reason.FAULT).to_response()
    response["Cache-Control"] = "no-store"
    return response


def _document(request: HttpRequest, document: dict[str, Any], *, cache_control: str) -> HttpResponseBase:
    """A JSON document with an ETag; 304 where the caller has it (RFC 9110 §13.1.2)."""
    body = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    response = HttpResponse(body, content_type="application/json; charset=utf-8")
    response["Cache-Control"] = cache_control
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


jwks = web.isolated_view(jwks_view)
revocations = web.isolated_view(revocations_view)
