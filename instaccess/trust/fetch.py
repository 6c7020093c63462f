"""Read a small JSON document from another server of ours: bounded in time and size, and never led elsewhere."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from ..exceptions import SourceUnavailable

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:[\s,]|$)", re.ASCII | re.IGNORECASE)

TIMEOUT = 1.0
"""Seconds for connecting, and for every wait for the server's next bytes: less than proxies wait for the gateway,
which goes on with what it has."""

BODY_SECONDS = 3.0
"""For the whole body. (Headers that drip take longer; `Snapshot` keeps other threads from waiting for that.)"""

MAX_BYTES = 4 * 1024 * 1024


def shown(url: str) -> str:
    """A URL as it may stand in a log: what is behind `?` may be a secret."""
    return url.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document, its ETag, and for how many seconds its server says it may be kept (None where it does not say)."""

    document: Any
    etag: str = ""
    max_age: int | None = None
    not_modified: bool = False


def fetch_json(url: str, *, etag: str = "", secret: str = "", max_bytes: int = MAX_BYTES) -> Fetched:
    """GET a JSON document.

    No redirect is followed: a redirect could send the secret, or the question which keys to trust, to another host.
    Raises SourceUnavailable for everything that goes wrong; the secret is in no text.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if etag:
        headers["If-None-Match"] = etag
    if secret:
        headers["Authorization"] = f"Bearer {secret}"
    deadline = time.monotonic() + BODY_SECONDS
    try:
        # An `auth` of our own keeps requests from putting a .netrc entry in place of the header.
        with requests.get(
            url, headers=headers, timeout=TIMEOUT, stream=True, allow_redirects=False, auth=lambda request: request
        ) as response:
            if response.status_code == requests.codes.not_modified and etag:
                return Fetched(None, etag, _max_age(response), not_modified=True)
            if response.status_code != requests.codes.ok:
                raise SourceUnavailable(f"{shown(url)} answered {response.status_code}{_hint(response, secret)}")
            if "Content-Encoding" in response.headers:
                raise SourceUnavailable(f"{shown(url)} sent a compressed document, though none was asked for")
            body = bytearray()
            # What has arrived, not what would fill a block: a server that drips is noticed in time.
            while chunk := response.raw.read1(16 * 1024):
                body += chunk
                if len(body) > max_bytes:
                    raise SourceUnavailable(f"{shown(url)} sent more than {max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise SourceUnavailable(f"{shown(url)} took longer than {BODY_SECONDS} s")
            return Fetched(json.loads(body), response.headers.get("ETag", ""), _max_age(response))
    except (requests.RequestException, HTTPError, OSError, ValueError, RecursionError) as error:
        raise SourceUnavailable(f"{shown(url)} can't be read ({_kind(error)})") from None


def _kind(error: Exception) -> str:
    """Names of errors alone: their texts have the whole URL."""
    inner = error.args[0] if error.args else None
    inner = getattr(inner, "reason", inner)
    names = [type(error).__name__] + [type(inner).__name__] * isinstance(inner, Exception)
    return ": ".join(dict.fromkeys(names))


def _hint(response: requests.Response, secret: str) -> str:
    if secret and response.status_code == requests.codes.unauthorized:
        return ": the first of INSTACCESS['SERVICE_SECRETS'] here must be one of those of the issuer"
    return ""


def _max_age(response: requests.Response) -> int | None:
    match = _MAX_AGE.search(response.headers.get("Cache-Control", ""))
    return int(match[1]) if match else None
