"""The errors that the client raises. Each message contains the fix.

No message contains a token or text from a response, because a server could repeat the access token in its response.
"""

from __future__ import annotations

from ..exceptions import InstAccessError


class ClientError(InstAccessError):
    """The base class of the errors that the client raises."""

    def __str__(self) -> str:
        return self.detail


class InvalidArgument(ClientError, ValueError):
    """The error for an invalid argument, such as a base URL without TLS."""


class AccessTokenRefused(ClientError):
    """The error for an OAuth2 access token that the issuer refused.

    If the caller passed `refresh`, the issuer also refused the access token that `refresh` returned.
    """


class AccessTokenExpired(AccessTokenRefused):
    """The error for an expired OAuth2 access token that can't be refreshed.

    The user must authorize the application again.
    """


class InsufficientScope(ClientError):
    """The error for an OAuth2 access token without the scope that the issuing endpoint requires."""


class InvalidAsUserID(ClientError):
    """The error if the user in `as_user_id` is unknown, or if the caller isn't allowed to masquerade as them."""


class EndpointNotFound(ClientError):
    """The error for a server without an issuing endpoint at the base URL."""


class TemporaryError(ClientError):
    """The base class of the errors after which a later attempt can succeed.

    Attributes:
        retry_after: the time to wait, in seconds, or None if the response contains no time.
    """

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimited(TemporaryError):
    """The error if the issuer's rate limit is exceeded."""


class IssuerUnavailable(TemporaryError):
    """The error for an issuer that doesn't answer, or answers with a server-side error."""


class UntrustedCertificate(ClientError):
    """The error for a failed TLS connection, for example because the certificate of the issuer isn't trusted."""


class UnexpectedResponse(ClientError):
    """The error for a response that the wire contract doesn't define, for example a redirect or a login page."""


class ForeignOrigin(ClientError):
    """The error for a request to an origin that is neither `base_url` nor listed in `origins`."""
