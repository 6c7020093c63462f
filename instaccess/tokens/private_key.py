"""Private keys as opaque objects, so that no error report contains a private key."""

from __future__ import annotations

from typing import Any

from jwcrypto.jwk import JWK

from ..opaque import Opaque, concealed


class PrivateKey(Opaque[JWK]):
    """An RSA key pair as an opaque object.

    A `JWK` object is a dictionary, so error reporters would print its private members.
    """

    __slots__ = ()

    DESCRIPTION = "private key"

    has_private = True
    """Whether the object contains a private key: always True. `JWK.has_private` is False for a public key."""

    @concealed
    def public(self) -> JWK:
        """Return the public key, with the `use` and `kid` of this key."""
        return JWK(**self.reveal().export_public(as_dict=True))

    @concealed
    def thumbprint(self) -> str:
        """Return the thumbprint of the public key (RFC 7638)."""
        return str(self.reveal().thumbprint())

    @concealed
    def op_key(self, operation: str) -> Any:
        """Return the key as an object of the cryptography library.

        The first call takes about as long as a hundred signatures, because OpenSSL checks and prepares the key.

        Args:
            operation: the operation that the key is needed for, such as `sign` (RFC 7517 §4.3).

        Raises UnexpectedError if the key isn't valid or must not be used for the operation.
        """
        return self.reveal().get_op_key(operation)
