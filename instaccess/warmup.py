"""Warm-up of a worker process: the private keys are loaded and used once before the first request.

OpenSSL validates a private key when the key is loaded, and precomputes values when the key is first used. Each of
these two steps takes as long as a hundred signatures. Without a warm-up, the first request would wait for both steps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

from . import database_errors, tokens, trust
from .conf import conf
from .exceptions import KeyUnavailable
from .logs import get_logger

logger = get_logger("instaccess.keys")

_steps: list[Callable[[], None]] = []


def add_step(step: Callable[[], None]) -> None:
    """Add a function that `warm_up` calls. `apps.py` adds the function that uses an issuer's signing key."""
    _steps.append(step)


def warm_up() -> None:
    """Load and use the private keys that this process needs, and fetch the JWKS and the deny list from their URLs.

    Call this function in gunicorn's `post_worker_init` hook, or at the end of an `asgi.py`. The function never raises
    an error. If keys are missing or the database is unavailable, the worker starts anyway, and the problem is logged.
    """
    # Use a separate thread, because uvicorn imports applications inside its event loop, where Django refuses database
    # queries. The thread also has its own database connections, which `_warm_up` closes.
    thread = threading.Thread(target=_warm_up, name="instaccess-warm-up")
    thread.start()
    thread.join()


def _warm_up() -> None:
    for step in (*_steps, _use_decryption_keys, _fetch_jwks, _fetch_deny_list):
        try:
            step()
        except Exception as error:  # A worker must start despite any error.
            # A missing key is not an error: an issuer may lack decryption keys, and a gateway may lack signing keys.
            level = logging.DEBUG if type(error) is KeyUnavailable else logging.ERROR
            logger.log(
                level,
                "a step of the warm-up failed (%(error)s): %(detail)s",
                error=type(error).__name__,
                detail=database_errors.describe(error),
            )
    connections.close_all()


def _use_decryption_keys() -> None:
    if conf.decryption_keys is None and not trust.has_key_table():
        return  # This process is a service, which doesn't decrypt tokens.
    for key in trust.decryption_keys().values():
        public, alg, enc = key.public(), conf.encryption_alg, conf.content_encryption
        token = tokens.encrypt("e30", public, kid="warm-up", alg=alg, enc=enc)
        tokens.decrypt(token, {"warm-up": key}, key_algorithms=(alg,))


def _fetch_jwks() -> None:
    # Without this fetch, a worker that starts shortly before an outage of the issuer would have no keys.
    if conf.verification_keys is not None:
        trust.verification_keys()


def _fetch_deny_list() -> None:
    if conf.deny_list != "database":
        trust.current_deny_list()
