"""Verification of an Authorization header without a web framework (docs/services-without-drf.md).

Django REST framework's authenticator and the integrations for other frameworks use the class `Verifier` too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

from django.views.decorators.debug import sensitive_variables
from jwcrypto.jwk import JWK

from .. import tokens, trust, web
from ..conf import Conf, conf
from ..exceptions import ForeignToken, InvalidToken, NoToken, Reason
from ..opaque import Opaque, concealed
from ..tokens import Claims, identifiers
from .lenient_parsing import find_bearer, is_inst_access_token

C = TypeVar("C", bound=Claims)

_ARGUMENTS = {
    "VERIFICATION_KEYS": "jwks_url",
    "ACCEPTED_ISSUERS": "issuers",
    "ACCOUNT_UUID": "account",
    "LEEWAY": "leeway",
    "MAX_STALENESS": "max_staleness",
    "ALLOW_HTTP_URLS": "allow_http",
    "REALM": "realm",
}
"""A mapping from the name of a setting to the argument of `Verifier` that has the same meaning."""


class _Arguments(Conf):
    """The arguments of a verifier, which are validated like the settings. Django's settings are not read."""

    def _describe(self, name: str) -> str:
        return f"the argument {_ARGUMENTS[name]} of Verifier"

    @property
    def jwks_url(self) -> str:
        value = self._get("VERIFICATION_KEYS", None)
        # Anything other than a string is validated as an empty string, so the error describes the accepted URLs.
        url = value if isinstance(value, str) else ""
        return self._url("VERIFICATION_KEYS", url, allow_http=self.allow_http_urls)


class _Keys(NamedTuple):
    """Two functions that return the public signing keys.

    `load` may wait for a database or another server. `cached` raises MustWait instead of waiting.
    """

    load: Callable[[], Mapping[str, JWK]]
    cached: Callable[[], Mapping[str, JWK]]


class Verifier:
    """A verifier of signed tokens with the keys of a JWKS URL.

    The verifier needs no Django settings, no tables and no framework. Create one verifier when the process starts,
    and use it for all requests, because the verifier caches the keys. Threads and event loops can share the verifier.
    A forked process can use the verifier of its parent.

    The keys are reloaded at intervals. Tokens with unknown keys cause a reload at most every 30 seconds.

    Args:
        jwks_url: the URL of the issuer's public signing keys.
        issuers: the accepted values of the claim `iss`. By default, the issuer is "instructure:inst_access".
        account: the uuid of the root account whose tokens are accepted. If None, tokens of all accounts are accepted.
        leeway: the time, in seconds past `exp`, for which a token is still accepted: 0 to 300.
        max_staleness: the additional time, in seconds, for which the cached keys are used if the URL can't be read:
            0 to 3600.
        allow_http: whether the URL may use http. A man in the middle can then replace the keys.
        realm: the realm in the header `WWW-Authenticate` (see `challenge`).

    Raises:
        ConfigError: an argument is invalid. The message contains the accepted values.
    """

    def __init__(
        self,
        *,
        jwks_url: str,
        issuers: Collection[str] | None = None,
        account: str | None = None,
        leeway: int = 0,
        max_staleness: int = 60,
        allow_http: bool = False,
        realm: str = "canvas-lms",
    ) -> None:
        values = _Arguments(
            {
                "VERIFICATION_KEYS": jwks_url,
                "ACCEPTED_ISSUERS": list(issuers) if isinstance(issuers, (set, frozenset)) else issuers,
                "ACCOUNT_UUID": account,
                "LEEWAY": leeway,
                "MAX_STALENESS": max_staleness,
                "ALLOW_HTTP_URLS": allow_http,
                "REALM": realm,
            }
        )
        # Read all values now, so that an invalid argument raises an error here and not during a request.
        _ = (values.accepted_issuers, values.account_uuid, values.leeway, values.max_staleness, values.realm)
        keys = trust.RemoteKeys(values.jwks_url, max_staleness=lambda: values.max_staleness)
        self._set(values, _Keys(keys.ensure_loaded, keys.without_waiting))

    @classmethod
    def from_settings(cls) -> Verifier:
        """Return a verifier with the values of the Django setting INSTACCESS, which are read for each token.

        The method `verify` checks ACCOUNT_UUID, but not ACCOUNT_HOOK, because ACCOUNT_HOOK needs a request.
        """
        verifier = cls.__new__(cls)
        verifier._set(
            conf,
            _Keys(
                lambda: trust.verification_keys(max_staleness=conf.max_staleness),
                trust.verification_keys_without_waiting,
            ),
        )
        return verifier

    def _set(self, values: Conf, keys: _Keys) -> None:
        self._values = values
        self._keys = keys

    def verify(self, authorization: str | None) -> Claims:
        """Return the claims of the token in an Authorization header.

        Args:
            authorization: the value of the header, such as "Bearer eyJ…". None if the request has no such header.

        Raises:
            NoToken: the header is absent or contains no bearer token. The request may contain other credentials.
            ForeignToken: the bearer token isn't an InstAccess token of an accepted issuer. Another authenticator may
                accept the token.
            InvalidToken: the token is refused. Answer 401. `code` is the reason, for the log only.
            KeyUnavailable, ConfigError, UnexpectedError: the token can't be checked. Answer 503.
        """
        header = Opaque(authorization)
        del authorization
        return self._verify_header(header, self._keys.load)

    async def averify(self, authorization: str | None) -> Claims:
        """Return the claims of the token in an Authorization header, without blocking the event loop.

        If the verification needs only cached keys, no thread is used. If keys must be loaded, a thread verifies the
        token.

        This method has the same argument as `verify`, and raises the same errors.
        """
        header = Opaque(authorization)
        # Delete the variable, because error reporters print the variables of all functions in a traceback.
        del authorization
        try:
            return self._verify_header(header, self._keys.cached)
        except trust.MustWait:
            pass
        return await asyncio.to_thread(self._verify_header, header, self._keys.load)

    @concealed
    def _verify_header(self, header: Opaque[str | None], keys: Callable[[], Mapping[str, JWK]]) -> Claims:
        authorization = header.reveal()
        if not authorization:
            raise NoToken("the request has no Authorization header")
        if (token := find_bearer(authorization)) is None:
            raise NoToken("the Authorization header contains no bearer token", code=Reason.MALFORMED_HEADER)
        if not self.is_ours(token):
            raise ForeignToken("the bearer token is not an InstAccess token of an accepted issuer")
        payload = self.read_payload(token, keys)
        try:
            claims = self.read_claims(payload, Claims)
            self.check_account(claims, self._values.account_uuid, "the argument account or ACCOUNT_UUID")
        except InvalidToken as refusal:
            # A ForeignToken would mean that another authenticator may accept the token, but only this verifier may
            # accept tokens of its issuers.
            error = InvalidToken(refusal.detail, code=refusal.code) if isinstance(refusal, ForeignToken) else refusal
            vars(error).update(identifiers(payload))
            raise error from None
        return claims

    def challenge(self) -> str:
        """Return the value of the header `WWW-Authenticate` for a 401. Raises ConfigError if REALM is invalid."""
        return web.challenge(self._values)

    # The following methods are the steps of `verify`. The integrations for web frameworks call the steps separately.

    @sensitive_variables("token")
    def is_ours(self, token: str) -> bool:
        """Return whether only this verifier may accept or refuse a bearer token.

        Returns True for a token with five segments (the format of a JWE), and for a JWT of an accepted issuer.

        Raises ConfigError if the verifier uses the settings, and a setting is invalid.
        """
        return is_inst_access_token(token, self._values.accepted_issuers)

    @sensitive_variables("token")
    def read_payload(self, token: str, keys: Callable[[], Mapping[str, JWK]] | None = None) -> dict[str, Any]:
        """Verify the signature of a token and return the payload. Raises InvalidToken or KeyUnavailable."""
        if token.count(".") == 4:
            raise InvalidToken(
                "the token is still encrypted: send the request through the gateway", code=Reason.STILL_ENCRYPTED
            )
        payload, _ = tokens.verify(token, (keys or self._keys.load)())
        return payload

    def read_claims(self, payload: Mapping[str, Any], claims_class: type[C]) -> C:
        """Validate a verified payload at the current time, and return the claims as an object of `claims_class`.

        Raises InvalidToken.
        """
        values = self._values
        return claims_class.from_payload(
            payload, now=time.time(), issuers=values.accepted_issuers, leeway=values.leeway
        )

    def check_account(self, claims: Claims, account: str | None, source: str) -> None:
        """Refuse a token of another account. If the account is None, tokens of every account are accepted.

        Args:
            source: the name of the setting or the argument that contains the account, for the log.

        Raises InvalidToken.
        """
        if account not in (None, claims.account_uuid):
            raise InvalidToken(
                f"the token is for account {claims.account_uuid!r}, not {account!r} ({source})",
                code=Reason.WRONG_ACCOUNT,
            )
