"""The errors of the client. Each text says what to do.

No text contains a token or text of a response, because a server could repeat the access token in its response.
"""

from __future__ import annotations

from ..exceptions import InstAccessError


class ClientError(InstAccessError):
    """The base class of the errors of the client."""

    def __str__(self) -> str:
        return self.detail


class InvalidArgument(ClientError, ValueError):
    """The error for an argument that can't work, such as a base URL without TLS."""


class AccessTokenRefused(ClientError):
    """The issuer refused the OAuth2 access token, and no other access token is available."""


class AccessTokenExpired(AccessTokenRefused):
    """The OAuth2 access token has expired and can't be refreshed. The user must authorize the application again."""


class InsufficientScope(ClientError):
    """The OAuth2 access token lacks the scope that issuing requires."""


class InvalidAsUserID(ClientError):
    """The issuer doesn't know the user in `as_user_id`, or the caller may not masquerade as this user."""


class EndpointNotFound(ClientError):
    """The server has no issuing endpoint at the base URL."""


class TemporaryError(ClientError):
    """The base class of the errors after which a later attempt can succeed.

    Attributes:
        retry_after: the time to wait, in seconds, or None if the issuer named no time.
    """

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimited(TemporaryError):
    """The issuer refused to issue more tokens at this time."""


class IssuerUnavailable(TemporaryError):
    """The issuer didn't answer, or answered with a server-side error."""


class UntrustedCertificate(ClientError):
    """The TLS connection failed, for example because the certificate of the issuer isn't trusted."""


class UnexpectedResponse(ClientError):
    """The response is neither a token nor a refusal of the wire contract, for example a redirect or a login page."""


class ForeignOrigin(ClientError):
    """The caller sent a request with this token to an origin that the caller didn't allow."""
