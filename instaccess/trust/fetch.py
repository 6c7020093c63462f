"""A function that fetches a JSON document from another server, with limits on time and size, and no redirects."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from ..exceptions import SourceUnavailable
from ..opaque import OpaqueText, concealed

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:[\s,]|$)", re.ASCII | re.IGNORECASE)

TIMEOUT = 1.0
"""The time limit, in seconds, for connecting and for each wait for the server's next bytes.

The proxies in the examples wait longer than this limit for the gateway. If the server doesn't answer, the gateway
therefore has time to decide with cached keys or a cached deny list.
"""

BODY_SECONDS = 3.0
"""The time limit, in seconds, for reading the whole body of a response.

A request can take longer if the server sends its headers slowly. `Refreshed` limits how long other threads wait for
the request.
"""

MAX_BYTES = 4 * 1024 * 1024
"""The default limit for the size of a response body, in bytes."""


def without_query(url: str) -> str:
    """Return a URL without its query, because the query can contain a secret that must not be logged."""
    return url.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Fetched:
    """The response to a GET request for a JSON document.

    Attributes:
        document: the parsed JSON, or None if the server answered 304.
        etag: the ETag of the document, or an empty string if the server sent no ETag.
        max_age: the `max-age` of the Cache-Control header in seconds, or None if `max-age` is absent.
        not_modified: whether the server answered 304.
    """

    document: Any
    etag: str = ""
    max_age: int | None = None
    not_modified: bool = False


@concealed
def fetch_json(
    url: str,
    *,
    parameters: Mapping[str, str] | None = None,
    etag: str = "",
    secret: OpaqueText | None = None,
    max_bytes: int = MAX_BYTES,
) -> Fetched:
    """Fetch a JSON document with GET.

    Redirects are not followed, because another host could then get the secret or replace trusted keys.

    Args:
        url: the URL to fetch.
        parameters: parameters to add to the query of the URL.
        etag: the ETag of the document that the caller has, or "". The ETag is sent as If-None-Match.
        secret: the bearer token to send, or None.
        max_bytes: the largest accepted body, in bytes.

    Raises:
        SourceUnavailable: the document can't be read. The message never contains the secret or the URL's query.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if etag:
        headers["If-None-Match"] = etag
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret.reveal()}"
    deadline = time.monotonic() + BODY_SECONDS
    try:
        # Set `auth`, so that the requests library doesn't replace the Authorization header if ~/.netrc contains the
        # host.
        with requests.get(
            url,
            params=parameters,
            headers=headers,
            timeout=TIMEOUT,
            stream=True,
            allow_redirects=False,
            auth=lambda request: request,
        ) as response:
            if response.status_code == requests.codes.not_modified and etag:
                return Fetched(None, etag, _max_age(response), not_modified=True)
            if response.status_code != requests.codes.ok:
                raise SourceUnavailable(
                    f"{without_query(url)} answered {response.status_code}{_hint(response, secret)}"
                )
            if response.headers.get("Content-Encoding", "").strip().lower() not in {"", "identity"}:
                raise SourceUnavailable(
                    f"{without_query(url)} sent a compressed document, although the request asked for no compression"
                )
            body = bytearray()
            # `read1` returns the bytes that have arrived. `read` would wait for a full block, so a server that sends
            # slowly could make the read last longer than the deadline.
            while chunk := response.raw.read1(io.DEFAULT_BUFFER_SIZE):
                body += chunk
                if len(body) > max_bytes:
                    raise SourceUnavailable(f"{without_query(url)} sent more than {max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise SourceUnavailable(f"{without_query(url)} took longer than {BODY_SECONDS} s")
            return Fetched(json.loads(body), response.headers.get("ETag", ""), _max_age(response))
    # The exceptions of the requests library are subclasses of OSError.
    except (HTTPError, OSError, ValueError, RecursionError) as error:
        raise SourceUnavailable(f"{without_query(url)} can't be read ({_error_names(error)})") from None


def _error_names(error: Exception) -> str:
    """Return the class names of an error and its cause, without the messages, which can contain the URL's query."""
    inner = error.args[0] if error.args else None
    inner = getattr(inner, "reason", inner)
    names = [type(error).__name__] + [type(inner).__name__] * isinstance(inner, Exception)
    return ": ".join(dict.fromkeys(names))


def _hint(response: requests.Response, secret: OpaqueText | None) -> str:
    if secret is not None and response.status_code == requests.codes.unauthorized:
        return ": add the first secret in this server's INSTACCESS['SERVICE_SECRETS'] to the issuer's SERVICE_SECRETS"
    return ""


def _max_age(response: requests.Response) -> int | None:
    match = _MAX_AGE.search(response.headers.get("Cache-Control", ""))
    return int(match[1]) if match else None
