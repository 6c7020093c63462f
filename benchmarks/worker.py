"""gunicorn's configuration: keys are loaded and used before the first request, as the README advises."""

# ruff: noqa: PLC0415  (gunicorn reads this before there is a project)
from __future__ import annotations

from typing import Any


def post_worker_init(worker: Any) -> None:
    """Open the private keys and use each once: the first signature takes as long as a hundred others."""
    from instaccess import jose, keyring

    ring = keyring.current()
    signing, encryption = ring.signing_key(), ring.encryption_key()
    signed = jose.sign(b"{}", signing.private(), kid=signing.kid)
    text = jose.encrypt(signed, encryption.public, kid=encryption.kid, alg="RSA-OAEP", enc="A128CBC-HS256")
    jose.decrypt(text, ring.decryption_keys())
    jose.verify(signed, ring.verification_keys())
