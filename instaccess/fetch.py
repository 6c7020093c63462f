"""Read a small JSON document from another server of ours: bounded in time and size, and never led elsewhere."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import requests

from .exceptions import SourceUnavailable

TIMEOUT = 3.0
"""Seconds for the whole exchange."""

MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document and its ETag. `document` is None when it has not changed since the ETag that was sent."""

    document: Any
    etag: str


def fetch_json(url: str, *, etag: str = "", secret: str = "", max_bytes: int = MAX_BYTES) -> Fetched:
    """GET a JSON document.

    No redirect is followed: a redirect could send the secret, or the question which keys to trust, to another host.
    Raises SourceUnavailable for everything that goes wrong; the secret is in no text.
    """
    headers = {"Accept": "application/json"}
    if etag:
        headers["If-None-Match"] = etag
    if secret:
        headers["Authorization"] = f"Bearer {secret}"
    deadline = time.monotonic() + TIMEOUT
    try:
        # An `auth` of our own keeps requests from putting a .netrc entry in place of the header.
        with requests.get(
            url, headers=headers, timeout=TIMEOUT, stream=True, allow_redirects=False, auth=lambda request: request
        ) as response:
            if response.status_code == requests.codes.not_modified and etag:
                return Fetched(None, etag)
            if response.status_code != requests.codes.ok:
                raise SourceUnavailable(f"{url} answered {response.status_code}")
            body = b""
            for chunk in response.iter_content(16 * 1024):
                body += chunk
                if len(body) > max_bytes:
                    raise SourceUnavailable(f"{url} sent more than {max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise SourceUnavailable(f"{url} took longer than {TIMEOUT} s")
            return Fetched(json.loads(body), response.headers.get("ETag", ""))
    except (requests.RequestException, ValueError, RecursionError) as error:
        raise SourceUnavailable(f"{url} can't be read ({type(error).__name__})") from None
