"""The one error tree: each error has a stable `code`, which goes to the log and never to a client.

`canvas.py` turns these into HTTP answers, once. Nothing here holds a token or key material: an error's text may be
logged and reported as it is.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why something is refused or fails: the only list of reason codes.

    Logs, the counts of refusals and `--json` outputs carry the value. Clients never see one.
    """

    # The bearer token of a request, as issuer, gateway and service find it.
    NO_CREDENTIALS = "no_credentials"
    MALFORMED_HEADER = "malformed_header"
    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    BAD_HEADER = "bad_header"
    WRONG_ALG = "wrong_alg"
    WRONG_TYPE = "wrong_type"
    DECRYPT_FAILED = "decrypt_failed"
    UNKNOWN_KID = "unknown_kid"
    BAD_SIGNATURE = "bad_signature"
    BAD_CLAIM = "bad_claim"
    BAD_LIFETIME = "bad_lifetime"
    NOT_YET = "not_yet"
    INVALID = "invalid"
    FOREIGN_ISSUER = "foreign_issuer"
    EXPIRED = "expired"
    REVOKED = "revoked"

    # What only the gateway refuses.
    ALREADY_DECRYPTED = "already_decrypted"
    OTHER_BEARER = "other_bearer"

    # What only a service refuses.
    STILL_ENCRYPTED = "still_encrypted"
    UNKNOWN_USER = "unknown_user"
    UNKNOWN_MASQUERADER = "unknown_masquerader"
    WRONG_ACCOUNT = "wrong_account"

    # What only the issuer refuses: the OAuth2 access token, and what is asked for with it.
    JWT_FROM_JWT = "jwt_from_jwt"
    BROKEN_JWT = "broken_jwt"
    UNKNOWN_TOKEN = "unknown_token"
    NO_USER = "no_user"
    NO_APPLICATION = "no_application"
    INACTIVE_USER = "inactive_user"
    REFUSED_BY_VALIDATOR = "refused_by_validator"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    AS_USER_ID = "as_user_id"
    AS_USER_ID_UNKNOWN = "as_user_id_unknown"
    AS_USER_ID_NOT_ALLOWED = "as_user_id_not_allowed"
    THROTTLED = "throttled"
    METHOD = "method"
    BAD_REQUEST = "bad_request"
    SERVICE_SECRET = "service_secret"

    # Server-side errors: the answer is 503, or a command fails.
    NO_KEY = "no_key"
    SOURCE_UNAVAILABLE = "source_unavailable"
    UNSEAL = "unseal"
    KEK_MISSING = "kek_missing"
    SEAL_BROKEN = "seal_broken"
    AUDIT = "audit"
    AUDIT_ALTERED = "audit_altered"
    CONFIG = "config"
    CLAIMS_TOO_LARGE = "claims_too_large"
    CLAIMS_NOT_JSON = "claims_not_json"
    KEY_REFUSED = "key_refused"
    FAULT = "fault"

    # Everything else.
    ERROR = "error"
    OTHER = "other"


class InstAccessError(Exception):
    """Root of every error this package raises on purpose.

    Args:
        detail: what happened, in words for the operator; names the setting to change or the command to run where
            a person can mend it. Must never contain a token or private key material.
        code: a stable, machine-readable reason; the class's own where not given.
    """

    code: Reason = Reason.ERROR

    def __init__(self, detail: str = "", *, code: Reason | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else str(self.code)


class ConfigError(InstAccessError):
    """A setting is missing or bad; the text names it."""

    code = Reason.CONFIG

    def __init__(self, detail: str, *, setting: str | None = None) -> None:
        super().__init__(detail)
        self.setting = setting


class KeyUnavailable(InstAccessError):
    """There is no key for what was asked, and none is made up; the text names the command that mends it."""

    code = Reason.NO_KEY


class SourceUnavailable(KeyUnavailable):
    """Keys or the deny list of another server can't be read, and what we have is too old to go on with."""

    code = Reason.SOURCE_UNAVAILABLE


class UnsealError(KeyUnavailable):
    """A sealed private key does not open: wrong key-encryption key, or the row was tampered with."""

    code = Reason.UNSEAL


class KeyRefused(InstAccessError):
    """A key that was offered (import) is not one we would use; the text says why."""

    code = Reason.KEY_REFUSED


class MasqueradeRefused(InstAccessError):
    """`as_user_id` names nobody the caller may be."""

    code = Reason.AS_USER_ID


class ClaimsTooLarge(InstAccessError):
    """The claims would not fit into the response headers of a forward-auth gateway."""

    code = Reason.CLAIMS_TOO_LARGE


class AuditError(InstAccessError):
    """The audit row could not be committed, so no token may leave."""

    code = Reason.AUDIT


class AuditAltered(InstAccessError):
    """Something in the audit is not as it was written; the text says what, `row` is the id of the row it is about."""

    code = Reason.AUDIT_ALTERED

    def __init__(self, detail: str, row: int | None = None, *, code: Reason | None = None) -> None:
        super().__init__(detail, code=code)
        self.row = row


class InvalidToken(InstAccessError):
    """A token is refused. `code` is the precise reason, for the log; callers outside get one uniform answer.

    `jti` is the token's own id, `user_uuid` and `client_id` are those it was for: known where its signature has been
    checked, else empty.
    """

    code = Reason.INVALID
    jti = user_uuid = client_id = ""


class ForeignToken(InvalidToken):
    """Well-formed, but not an InstAccess token of ours: another issuer. Another authenticator may know it."""

    code = Reason.FOREIGN_ISSUER


class TokenExpired(InvalidToken):
    """Past its `exp` (RFC 7519 §4.1.4: `exp` equal to now is expired)."""

    code = Reason.EXPIRED


class TokenRevoked(InvalidToken):
    """Its `jti` is on the deny list."""

    code = Reason.REVOKED
