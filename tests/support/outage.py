"""A script that sends requests to one role while the database is unavailable, and prints statuses and log lines.

Each line of the output is a JSON object.

Usage: python -m tests.support.outage issuer
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
from typing import Any

import django
from django.conf import settings
from django.test import Client

TIMES = 25
SECRET = "s" * 32


class Printer(logging.Handler):
    """A log handler that prints each log line as one JSON object."""

    def emit(self, record: logging.LogRecord) -> None:
        line = {"logger": record.name, "text": record.getMessage(), "traceback": bool(record.exc_info)}
        sys.stdout.write(json.dumps(line) + "\n")


def segment(**members: Any) -> str:
    """Encode the members of a JSON object as one segment of a token: base64url without padding."""
    return base64.urlsafe_b64encode(json.dumps(members, separators=(",", ":")).encode()).decode().rstrip("=")


def requests() -> dict[str, tuple[str, str, str]]:
    """Return the method, the URL and the bearer token of the request to each role.

    Without the database, none of these requests can be answered: the issuer looks up the access token, the gateway
    and the service load their keys, and the last two URLs return stored keys and stored revocations.
    """
    encrypted = segment(alg="RSA-OAEP", enc="A128CBC-HS256", kid="k")
    jwe = [encrypted, *(base64.urlsafe_b64encode(bytes(size)).decode().rstrip("=") for size in (256, 16, 16, 16))]
    jws = [segment(alg="RS256", kid="k"), segment(iss=settings.INSTACCESS["ISSUER"]), "e30"]
    return {
        "issuer": ("POST", "/api/v1/inst_access_tokens", "opaque"),
        "gateway": (
            "GET",
            "/internal/gateway/verify",
            ".".join(jwe),
        ),
        "service": (
            "GET",
            "/api/v1/users/self",
            ".".join(jws),
        ),
        "jwks": ("GET", "/internal/services/jwks", SECRET),
        "revocations": ("GET", "/internal/services/revocations", SECRET),
    }


def main(role: str) -> None:
    """Send `TIMES` equal requests to a role. Prints each status, and each log line at WARNING or above."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
    os.environ["INSTACCESS_SETTINGS"] = json.dumps({"ISSUER": "instaccess:test", "SERVICE_SECRETS": [SECRET]})
    django.setup()
    for name in logging.root.manager.loggerDict:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("instaccess").setLevel(logging.WARNING)
    logging.root.handlers = [Printer(logging.WARNING)]
    client = Client(raise_request_exception=False)
    method, url, bearer = requests()[role]
    for _ in range(TIMES):
        response = client.generic(method, url, headers={"Authorization": f"Bearer {bearer}"})
        sys.stdout.write(json.dumps({"status": response.status_code}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
