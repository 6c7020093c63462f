"""The one error tree: each error has a stable `code`, which goes to the log and never to a client.

`canvas.py` turns these into HTTP answers, once. Nothing here holds a token or key material: an error's text may be
logged and reported as it is.
"""


class InstAccessError(Exception):
    """Root of every error this package raises on purpose.

    Args:
        detail: what happened, in words for the operator; names the setting to change or the command to run where
            a person can mend it. Must never contain a token or private key material.
        code: a stable, machine-readable reason; the class's own where not given.
    """

    code = "error"

    def __init__(self, detail: str = "", *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


class ConfigError(InstAccessError):
    """A setting is missing or bad; the text names it."""

    code = "config"

    def __init__(self, detail: str, *, setting: str | None = None) -> None:
        super().__init__(detail)
        self.setting = setting


class KeyUnavailable(InstAccessError):
    """There is no key for what was asked, and none is made up; the text names the command that mends it."""

    code = "no_key"


class SourceUnavailable(KeyUnavailable):
    """Keys or the deny list of another server can't be read, and what we have is too old to go on with."""

    code = "source_unavailable"


class UnsealError(KeyUnavailable):
    """A sealed private key does not open: wrong key-encryption key, or the row was tampered with."""

    code = "unseal"


class KeyRefused(InstAccessError):
    """A key that was offered (import) is not one we would use; the text says why."""

    code = "key_refused"


class MasqueradeRefused(InstAccessError):
    """`as_user_id` names nobody the caller may be."""

    code = "as_user_id"


class ClaimsTooLarge(InstAccessError):
    """The claims would not fit into the response headers of a forward-auth gateway."""

    code = "claims_too_large"


class AuditError(InstAccessError):
    """The audit row could not be committed, so no token may leave."""

    code = "audit"


class AuditAltered(InstAccessError):
    """Something in the audit is not as it was written; the text says what, `row` is the id of the row it is about."""

    code = "audit_altered"

    def __init__(self, detail: str, row: int | None = None, *, code: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.row = row


class InvalidToken(InstAccessError):
    """A token is refused. `code` is the precise reason, for the log; callers outside get one uniform answer.

    `jti` is the token's own id, `user_uuid` and `client_id` are those it was for: known where its signature has been
    checked, else empty.
    """

    code = "invalid"
    jti = user_uuid = client_id = ""


class ForeignToken(InvalidToken):
    """Well-formed, but not an InstAccess token of ours: another issuer. Another authenticator may know it."""

    code = "foreign_issuer"


class TokenExpired(InvalidToken):
    """Past its `exp` (RFC 7519 §4.1.4: `exp` equal to now is expired)."""

    code = "expired"


class TokenRevoked(InvalidToken):
    """Its `jti` is on the deny list."""

    code = "revoked"
