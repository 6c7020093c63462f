"""Keys loaded and used once when a worker starts: OpenSSL checks a private key when it is loaded, and prepares its
numbers when it is first used, and either takes as long as a hundred signatures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

from . import tokens, trust
from .conf import conf
from .exceptions import KeyUnavailable

logger = logging.getLogger("instaccess.keys")


_steps: list[Callable[[], None]] = []


def add_step(step: Callable[[], None]) -> None:
    """Have `warm_up` do this too. Called by `apps.py` for what an issuer needs."""
    _steps.append(step)


def warm_up() -> None:
    """Open the private keys that this process will need, and use each once; read the JWKS and the deny list that
    come from a URL.

    For gunicorn's `post_worker_init`, and the end of an `asgi.py`. Never fails: without keys, or with the database
    away, a worker starts all the same, and the log says so.
    """
    # In a thread, whose database connection goes with it; and uvicorn imports applications within its event loop,
    # where Django refuses to ask a database.
    thread = threading.Thread(target=_warm_up, name="instaccess-warm-up")
    thread.start()
    thread.join()


def _warm_up() -> None:
    for use_once in (*_steps, _decrypt, _read_jwks, _read_deny_list):
        try:
            use_once()
        except Exception as error:  # no fault that a start should fail for
            # An issuer need not hold what opens tokens, nor a gateway what signs them.
            level = logging.DEBUG if type(error) is KeyUnavailable else logging.ERROR
            logger.log(level, "not warmed up: %s: %s", type(error).__name__, error)
    connections.close_all()


def _decrypt() -> None:
    if conf.decryption_keys is None and not trust.has_key_table():
        return  # a service, which opens none
    for key in trust.decryption_keys().values():
        text = tokens.encrypt("e30", key, kid="warm-up", alg=conf.encryption_alg, enc=conf.content_encryption)
        tokens.decrypt(text, {"warm-up": key}, key_algorithms=(conf.encryption_alg,))


# What comes from elsewhere: a worker that has not read it before that is away has nothing to go on with then.


def _read_jwks() -> None:
    if conf.verification_keys is not None:
        trust.verification_keys()


def _read_deny_list() -> None:
    if conf.deny_list != "database":
        trust.current_deny_list()
