"""A script that sends requests to one role without a database, and prints statuses and log lines as JSON.

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
    """Return a header or claims as a segment of a token."""
    return base64.urlsafe_b64encode(json.dumps(members, separators=(",", ":")).encode()).decode().rstrip("=")


def requests() -> dict[str, tuple[str, str, str]]:
    """Return the method, the URL and the bearer token for each role. To check these tokens, a role needs its keys."""
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
    """Send the requests. The log goes to one handler, with all loggers at WARNING."""
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
