"""Views that the benchmarks compare with this package. Each alternative is used as its documentation advises."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from jwcrypto.jwt import JWT
from knox.models import AuthToken
from oauth2_provider.contrib.rest_framework import OAuth2Authentication, TokenHasScope
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.tokens import AccessToken

from instaccess.audit import names, row_hmac
from instaccess.audit.row_ids import row_id
from instaccess.conf import SCOPE, conf
from instaccess.issuer import throttling
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken
from instaccess.service import InstAccessAuthentication, TokenUser

from .bare import Decoder, Encoder

logger = logging.getLogger("instaccess.benchmarks")

LIFETIME = 3600
ISSUER = "instructure:inst_access"


class Nothing(APIView):
    """A view that only authenticates with django-oauth-toolkit. All issuing endpoints are compared with this view."""

    authentication_classes = [OAuth2Authentication]
    permission_classes = [IsAuthenticated]

    def post(self, request: Request) -> Response:
        return Response({"ok": True}, status=201)


class SimpleJWT(Nothing):
    """A view that returns a token of djangorestframework-simplejwt, which is signed with HS256 but not encrypted."""

    def post(self, request: Request) -> Response:
        return Response({"token": str(AccessToken.for_user(request.user))}, status=201)


class Knox(Nothing):
    """A view that returns a random token of django-rest-knox and stores the token's digest."""

    def post(self, request: Request) -> Response:
        return Response({"token": AuthToken.objects.create(request.user)[1]}, status=201)


class Naive(APIView):
    """A simple issuer that uses jwcrypto as its README describes, and inserts an audit row with the ORM.

    The view computes the uuid of the user. In contrast, the package reads the uuid from the database.
    """

    authentication_classes = [OAuth2Authentication]
    permission_classes = [TokenHasScope]
    required_scopes = [SCOPE]

    def post(self, request: Request) -> Response:
        ring = keys_ring.current_ring()
        signing, encryption = ring.signing_key(), ring.encryption_key()
        user, token = request.user, request.auth
        user_uuid = str(uuid.uuid5(uuid.NAMESPACE_URL, str(user.pk)))
        claims = _claims(user.pk, user_uuid, request.get_host())
        signed = JWT(header={"typ": "JWT", "alg": "RS256", "kid": signing.kid}, claims=claims)
        signed.make_signed_token(signing.private().reveal())
        encrypted = JWT(
            header={"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "cty": "JWT", "kid": encryption.kid},
            claims=signed.serialize(),
        )
        encrypted.make_encrypted_token(encryption.public)
        IssuedToken.objects.create(
            jti=claims["jti"],
            user=user,
            user_uuid=user_uuid,
            user_name=user.get_username(),
            application=token.application,
            client_id=token.application.client_id,
            access_token_pk=str(token.pk),
            account_uuid=claims["acct"],
            canvas_domain=claims["canvas_domain"],
            signing_kid=signing.kid,
            encryption_kid=encryption.kid,
            ip_address=request.META["REMOTE_ADDR"],
            user_agent=request.META.get("HTTP_USER_AGENT", ""),
            issued_at=datetime.fromtimestamp(claims["iat"], UTC),
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        )
        return Response({"token": encrypted.serialize()}, status=201)


# These SQL statements work only with the default tables and don't support swapped models.
_SELECT = """
SELECT t.id, t.scope, a.id, a.client_id, u.id, u.username, i.uuid
FROM oauth2_provider_accesstoken t
JOIN oauth2_provider_application a ON a.id = t.application_id
JOIN auth_user u ON u.id = t.user_id
JOIN instaccess_useridentity i ON i.user_id = u.id
WHERE t.token_checksum = %s AND t.expires > %s AND u.is_active
"""
_INSERT = """
INSERT INTO instaccess_issuedtoken (id, jti, user_id, user_uuid, user_name, real_user_uuid, real_user_name,
  application_id, client_id, access_token_pk, account_uuid, canvas_domain, signing_kid, encryption_kid, ip_address,
  user_agent, issued_at, expires_at, revoked_by, revocation_reason, mac, names_mac)
VALUES (%s, %s, %s, %s, %s, '', '', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, '', '', %s, %s)
"""


@csrf_exempt
def floor(request: HttpRequest) -> HttpResponse:
    """Issue a token with one SELECT, direct calls of OpenSSL and one INSERT. An issuer can hardly be faster.

    The view uses neither DRF nor the ORM. The view omits the validator, throttling, tamper evidence and the log. The
    errors differ from Canvas's errors.
    """
    return _floor(request, guarded=False)


@csrf_exempt
def guarded_floor(request: HttpRequest) -> HttpResponse:
    """Issue a token as `floor` does, but with throttling on Redis, an HMAC per audit row, and a log line."""
    return _floor(request, guarded=True)


def _floor(request: HttpRequest, *, guarded: bool) -> HttpResponse:
    scheme, _, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    now = time.time()
    adapt_time = connection.ops.adapt_datetimefield_value
    with connection.cursor() as cursor:
        checksum = hashlib.sha256(text.encode()).hexdigest()
        cursor.execute(_SELECT, [checksum, adapt_time(datetime.fromtimestamp(now, UTC))])
        row = cursor.fetchone()
        if scheme != "Bearer" or row is None or SCOPE not in row[1].split():
            return HttpResponse(status=401)
        token_pk, _, application_pk, client_id, user_pk, user_name, user_uuid = row
        if guarded and not throttling.charge(token_pk).allowed:
            return HttpResponse(status=429)
        claims = _claims(user_pk, str(user_uuid), request.get_host())
        encoder, signing_kid, encryption_kid = _encoder()
        encrypted = encoder.encode(json.dumps(claims, separators=(",", ":")).encode())
        jti, issued_at = uuid.UUID(claims["jti"]), datetime.fromtimestamp(claims["iat"], UTC)
        audit_row = SimpleNamespace(
            pk=row_id(issued_at, jti),
            jti=jti,
            user_uuid=claims["sub"],
            user_name=user_name,
            real_user_uuid="",
            real_user_name="",
            client_id=client_id,
            access_token_pk=str(token_pk),
            account_uuid=claims["acct"],
            canvas_domain=claims["canvas_domain"],
            signing_kid=signing_kid,
            encryption_kid=encryption_kid,
            ip_address=request.META["REMOTE_ADDR"],
            user_agent=request.META.get("HTTP_USER_AGENT", ""),
            issued_at=issued_at,
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
            revoked_at=None,
            revoked_by="",
            revocation_reason="",
        )
        mac = names_mac = ""
        if guarded:
            record, keks = cast("IssuedToken", audit_row), conf.key_encryption_keys
            mac = row_hmac.authenticate(row_hmac.canonical_bytes(record), keks)
            names_mac = row_hmac.authenticate(names.canonical_bytes(record), keks)
        cursor.execute(
            _INSERT,
            [
                audit_row.pk,
                audit_row.jti.hex,
                user_pk,
                audit_row.user_uuid,
                user_name,
                application_pk,
                client_id,
                audit_row.access_token_pk,
                audit_row.account_uuid,
                audit_row.canvas_domain,
                signing_kid,
                encryption_kid,
                audit_row.ip_address,
                audit_row.user_agent,
                adapt_time(audit_row.issued_at),
                adapt_time(audit_row.expires_at),
                mac,
                names_mac,
            ],
        )
    if guarded:
        logger.info(
            "issued jti=%s user=%s client_id=%r signing_kid=%s", audit_row.jti, user_pk, client_id, signing_kid
        )
    return JsonResponse({"token": encrypted}, status=201)


def no_content(request: HttpRequest) -> HttpResponse:
    """Answer 204. The gateway is compared with this plain Django view."""
    return HttpResponse(status=204)


class Service(APIView):
    """A view that accepts a signed InstAccess token, as in a service without local users."""

    authentication_classes: list[type] = [InstAccessAuthentication]
    permission_classes = [IsAuthenticated]

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user)})


class BareAuthentication(BaseAuthentication):
    """Authentication that checks only the signature of the token."""

    def authenticate(self, request: Request) -> tuple[Any, Any]:
        text = request.META.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        try:
            claims = _decoder().verify(text.encode())
        except (InvalidSignature, ValueError):
            raise AuthenticationFailed from None
        return _BareUser(claims["sub"]), claims

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class _BareUser(TokenUser):
    def __init__(self, uuid: str) -> None:
        self.uuid = uuid


class BareService(Service):
    """A view that only verifies an RS256 signature. The service is compared with this view."""

    authentication_classes = [BareAuthentication]


def _claims(user_pk: Any, user_uuid: str, host: str) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": ISSUER,
        "jti": str(uuid.uuid4()),
        "iat": now,
        "exp": now + LIFETIME,
        "sub": user_uuid,
        "acct": str(uuid.uuid5(uuid.NAMESPACE_DNS, host.partition(":")[0])),
        "canvas_domain": host,
        "debug_user_global_id": str(user_pk),
    }


# The encoder and the decoder are cached without expiry, because the keys don't change while a benchmark runs.


@cache
def _encoder() -> tuple[Encoder, str, str]:
    ring = keys_ring.current_ring()
    signing, encryption = ring.signing_key(), ring.encryption_key()
    keys = signing.private().op_key("sign"), encryption.public.get_op_key("wrapKey")
    return Encoder(keys[0], signing.kid, keys[1], encryption.kid), signing.kid, encryption.kid


@cache
def _decoder() -> Decoder:
    ring = keys_ring.current_ring()
    decryption, verification = ring.encryption_key().private().reveal(), ring.signing_key().public
    return Decoder(decryption.get_op_key("unwrapKey"), verification.get_op_key("verify"))
