"""One request to the issuing endpoint. docs/wire-contract.md §1 defines the requests and the responses."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from ..opaque import OpaqueText, concealed
from .errors import (
    AccessTokenExpired,
    AccessTokenRefused,
    ClientError,
    EndpointNotFound,
    InsufficientScope,
    InvalidArgument,
    InvalidAsUserID,
    IssuerUnavailable,
    RateLimited,
    UnexpectedResponse,
    UntrustedCertificate,
)
from .waiting import parse_retry_after, wall_clock

PATH = "/api/v1/inst_access_tokens"
SCOPE = "url:POST|/api/v1/inst_access_tokens"

MAX_BYTES = 64 * 1024
"""The maximum size of a response body, in bytes. A token has at most 8 KiB."""

_HEADER_VALUE = re.compile(r"[\x21-\x7e]+")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){2,4}")
_REFRESH = "Get a new access token through the OAuth2 provider of the issuer. The function `refresh` can do this."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The issuing endpoint and the options of each request.

    Attributes:
        base_url: the URL of the issuer, without the path of the endpoint.
        as_user_id: the id of the user for whom to get a token, or None.
        timeout: the time limit for connecting, for each wait for data, and for the whole body, in seconds.
        ca_bundle: the file with the trusted certificates, or None for the default of the library `requests`.
    """

    base_url: str
    as_user_id: str | None
    timeout: float
    ca_bundle: str | None

    @property
    def url(self) -> str:
        return self.base_url + PATH


@concealed
def check_access_token(value: str) -> OpaqueText:
    """Check that an access token can be the value of a header. Returns the access token as an opaque object.

    Raises InvalidArgument if the access token is not a string, is empty, or contains a character that is not visible
    ASCII.
    """
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise InvalidArgument(
            "The access token is empty, is not a string, or contains a space, a line break or a character outside "
            "ASCII. If the access token comes from a file, remove the line break at the end."
        )
    return OpaqueText(value)


@concealed
def request_token(endpoint: Endpoint, access_token: OpaqueText) -> OpaqueText:
    """Request a token once. Redirects are not followed, because another server could then get the access token.

    Raises:
        ClientError: the response contains no token, or there is no response. The class identifies the cause, and the
            message contains the fix.
    """
    deadline = time.monotonic() + endpoint.timeout
    try:
        # Set `auth`, so that the requests library doesn't replace the Authorization header if ~/.netrc contains the
        # host.
        with requests.post(
            endpoint.url,
            data={} if endpoint.as_user_id is None else {"as_user_id": endpoint.as_user_id},
            headers={
                "Authorization": f"Bearer {access_token.reveal()}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            timeout=endpoint.timeout,
            verify=endpoint.ca_bundle or True,
            stream=True,
            allow_redirects=False,
            auth=lambda request: request,
        ) as response:
            body = bytearray()
            # `read1` returns the bytes that have arrived. `read` would wait for a full block, so a server that sends
            # slowly could make the read last longer than the deadline.
            while chunk := response.raw.read1(4096):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise UnexpectedResponse(f"{endpoint.url} sent more than {MAX_BYTES} bytes. {_CHECK_URL}")
                if time.monotonic() > deadline:
                    raise _timed_out(endpoint)
            if response.status_code in (HTTPStatus.OK, HTTPStatus.CREATED):
                return _read_token(endpoint, bytes(body))
            raise _refusal(endpoint, response, bytes(body))
    except requests.exceptions.SSLError:
        raise UntrustedCertificate(
            f"The TLS connection to {endpoint.base_url} failed. Check the certificate of the server. If a private "
            "authority issued the certificate, pass the file of this authority as `ca_bundle`, or set "
            "REQUESTS_CA_BUNDLE."
        ) from None
    except requests.Timeout:
        raise _timed_out(endpoint) from None
    except (requests.RequestException, HTTPError, OSError, ValueError) as error:
        raise IssuerUnavailable(
            f"{endpoint.base_url} can't be reached ({type(error).__name__}). Check `base_url`, the network and the "
            "proxy settings of this machine, then try again."
        ) from None


_CHECK_URL = "Check that `base_url` is the address of Canvas or of the issuer."


def _timed_out(endpoint: Endpoint) -> IssuerUnavailable:
    return IssuerUnavailable(
        f"{endpoint.base_url} didn't answer within {endpoint.timeout:g} seconds. Try again later. If the issuer is "
        "slow, pass a larger `timeout`."
    )


def _read_token(endpoint: Endpoint, body: bytes) -> OpaqueText:
    document = _parse(body)
    token = document.get("token") if isinstance(document, dict) else None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise UnexpectedResponse(f"{endpoint.url} answered without a token. {_CHECK_URL}")
    return OpaqueText(token)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _refusal(endpoint: Endpoint, response: requests.Response, body: bytes) -> ClientError:
    """Return the error for a response without a token."""
    status, headers = response.status_code, response.headers
    retry_after = parse_retry_after(headers.get("Retry-After"), date=headers.get("Date"), now=wall_clock())
    if status == HTTPStatus.TOO_MANY_REQUESTS or (status == HTTPStatus.FORBIDDEN and b"Rate Limit Exceeded" in body):
        return RateLimited(
            f"{endpoint.base_url} issues no more tokens for this access token at this time. Share one `InstAccess` "
            "between all threads and tasks, because each token is valid for up to an hour.",
            retry_after=retry_after,
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return IssuerUnavailable(
            f"{endpoint.url} answered {status}. Try again later. If the error persists, ask the operator of the "
            "issuer.",
            retry_after=retry_after,
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return _refused(endpoint, body) or UnexpectedResponse(
            f"{endpoint.url} answered {status}, but not as an issuer does. A firewall or a proxy may have refused "
            f"the request. {_CHECK_URL}"
        )
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        return EndpointNotFound(
            f"{endpoint.url} answered {status}. Pass the address of Canvas or of the issuer as `base_url`, without "
            "/api/v1, for example https://canvas.example.edu."
        )
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return UnexpectedResponse(
            f"{endpoint.url} answered with a redirect ({status}), which is not followed, because another server "
            "could then get the access token. If you trust the address to which the server redirects, pass this "
            "address as `base_url`."
        )
    return UnexpectedResponse(f"{endpoint.url} answered {status}. {_CHECK_URL}")


def _refused(endpoint: Endpoint, body: bytes) -> ClientError | None:
    """Return the error for a refusal that the wire contract defines, or None."""
    document = _parse(body)
    if not isinstance(document, dict):
        return None
    errors = document.get("errors")
    if errors == "Invalid as_user_id":
        return InvalidAsUserID(
            "The issuer refused `as_user_id`. Check the id, and that the user of the access token may masquerade as "
            "this user."
        )
    if document.get("error") == "cannot generate a JWT when authorized by a JWT":
        return AccessTokenRefused(
            f"The access token is an InstAccess token. Pass an OAuth2 access token instead. {_REFRESH}"
        )
    first = errors[0] if isinstance(errors, list) and errors else None
    message = first.get("message") if isinstance(first, dict) else None
    if message == "Insufficient scopes on access token.":
        return InsufficientScope(
            f"The access token lacks the scope {SCOPE}. Enable the scope for the application, and ask the user "
            "to authorize the application again with this scope."
        )
    if message == "Expired access token.":
        return AccessTokenExpired(
            "The access token has expired and can't be refreshed. Ask the user to authorize the application again."
        )
    if message in ("Invalid access token.", "user authorization required"):
        return AccessTokenRefused(f"{endpoint.base_url} refused the access token. {_REFRESH}")
    return None
