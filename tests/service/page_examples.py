"""The examples in docs/services-without-drf.md, and a server with the JWKS that the examples read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.service.helpers import jwks
from tests.support import readme, servers
from tests.support.tokens import TokenFactory

TEXT = readme.page("services-without-drf.md")
JWKS_URL = "https://canvas.example.edu/internal/services/jwks"
ACCOUNT = "0c1b3e1c-2f0e-4c5b-9a51-6f3d1f6f2a10"


class Example(NamedTuple):
    """An example: the files of the project, and the application that uvicorn serves."""

    files: dict[str, str]
    application: list[str]


def _files(title: str) -> list[tuple[str, str]]:
    codes = [snippet.code for snippet in readme.snippets(readme.section(title, TEXT)) if snippet.language == "python"]
    return [(re.match(r"# (\w+\.py)\n", code)[1], code) for code in codes]  # type: ignore[index]


_DJANGO = ["--factory", "django.core.asgi:get_asgi_application"]
_STARLETTE, BACKEND = ({name: code} for name, code in _files("Starlette"))
WSGI = dict(_files("Any Python program"))
EXAMPLES = {
    "django": Example(dict(_files("Django")), _DJANGO),
    "ninja": Example(dict(_files("django-ninja")), _DJANGO),
    "starlette": Example(_STARLETTE, ["application:app"]),
    "fastapi": Example(dict(_files("FastAPI")), ["application:app"]),
}


def with_url(code: str, server: servers.ScriptedServer) -> str:
    """Replace the URL of the JWKS in an example, and allow http, because the test server has no certificate.

    If the example contains ALLOWED_HOSTS, also allow the host of the test server.
    """
    assert code.count(JWKS_URL) <= 1
    code = code.replace(f'jwks_url="{JWKS_URL}",', f'jwks_url="{server.base_url}/jwks", allow_http=True,')
    code = code.replace(f'"{JWKS_URL}",', f'"{server.base_url}/jwks", "ALLOW_HTTP_URLS": True,')
    return code.replace('"service.example.edu"', f'"service.example.edu", "{servers.HOST}"')


@contextmanager
def running_jwks_server(token_factory: TokenFactory) -> Iterator[servers.ScriptedServer]:
    """Run a server that answers each request with the factory's JWK set until the context ends. Yields the server."""
    with servers.scripted_server(lambda handler: servers.reply(handler, 200, jwks(token_factory.signing))) as server:
        yield server
