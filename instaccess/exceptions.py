"""The errors that this package raises, and the reason codes.

Every error has a stable `code`, which is logged and never sent to a client. `web/answers.py` defines the HTTP
responses. Messages of errors never contain a token or a private key, so every message may be logged and reported
unchanged.
"""

from enum import StrEnum


class Reason(StrEnum):
    """All reason codes of refusals and failures.

    The codes appear in logs, in the refusal counts and in `--json` output. Clients never receive the codes.
    """

    # All roles use these codes for problems with the bearer token of a request.
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

    # Only the gateway refuses requests with these codes.
    ALREADY_DECRYPTED = "already_decrypted"
    OTHER_BEARER = "other_bearer"

    # Only a service refuses requests with these codes.
    STILL_ENCRYPTED = "still_encrypted"
    UNKNOWN_USER = "unknown_user"
    UNKNOWN_MASQUERADER = "unknown_masquerader"
    WRONG_ACCOUNT = "wrong_account"
    UNUSABLE_CLIENT = "unusable_client"

    # Only the issuer refuses requests with these codes: the OAuth2 access token or the request has a problem.
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

    # These codes are for server-side errors: the response is 503, or a command fails.
    NO_KEY = "no_key"
    SOURCE_UNAVAILABLE = "source_unavailable"
    UNSEAL = "unseal"
    KEK_MISSING = "kek_missing"
    SEAL_BROKEN = "seal_broken"
    KEY_ALTERED = "key_altered"
    AUDIT = "audit"
    AUDIT_ALTERED = "audit_altered"
    CONFIG = "config"
    CLAIMS_TOO_LARGE = "claims_too_large"
    CLAIMS_NOT_JSON = "claims_not_json"
    KEY_REFUSED = "key_refused"
    FAULT = "fault"

    # These codes are the defaults for errors without a more precise code.
    ERROR = "error"
    OTHER = "other"


class InstAccessError(Exception):
    """The base class of the errors that this package raises.

    Args:
        detail: what happened, for the operator. If an operator can fix the problem, the text contains the setting to
            change or the command to run. The text must never contain a token or private key material.
        code: the machine-readable reason. The default is the code of the class.
    """

    code: Reason = Reason.ERROR

    def __init__(self, detail: str = "", *, code: Reason | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else str(self.code)


class UnexpectedError(InstAccessError):
    """The error that replaces an unexpected exception in code that handles secrets.

    The text contains only the class and the location of the exception, because the message may contain a secret.
    """

    code = Reason.FAULT


class ConfigError(InstAccessError):
    """The error for a missing or invalid setting. The text contains the name of the setting."""

    code = Reason.CONFIG

    def __init__(self, detail: str, *, setting: str | None = None) -> None:
        super().__init__(detail)
        self.setting = setting


class KeyUnavailable(InstAccessError):
    """The error for a required key that does not exist or can't be loaded.

    The text contains the setting to change or the command to run.
    """

    code = Reason.NO_KEY


class SourceUnavailable(KeyUnavailable):
    """The error for keys or a deny list that can't be read from their source, if no usable copy is cached.

    A cached copy is usable if the copy is less than `interval` + `max_staleness` seconds old (see
    `trust.refreshed.Refreshed.get`).
    """

    code = Reason.SOURCE_UNAVAILABLE


class UnsealError(KeyUnavailable):
    """The error for a private key that can't be unsealed, or for a row of a key that can't be checked.

    Either the required key-encryption key is not configured, or the sealed private key was modified.
    """

    code = Reason.UNSEAL


class KeyAltered(KeyUnavailable):
    """The error for a row of a key that was modified or inserted without this package.

    The text contains the command to run or the row to delete.
    """

    code = Reason.KEY_ALTERED


class KeyRefused(InstAccessError):
    """The error for a key that can't be imported or used. The text contains the reason."""

    code = Reason.KEY_REFUSED


class MasqueradeRefused(InstAccessError):
    """The refusal of a token for the user with the id in `as_user_id`.

    Either the caller lacks permission, or there is no active user with the id.
    """

    code = Reason.AS_USER_ID


class ClaimsTooLarge(InstAccessError):
    """The error for claims that are too large for a gateway's response headers, nested too deeply, or not JSON."""

    code = Reason.CLAIMS_TOO_LARGE


class AuditError(InstAccessError):
    """The error for an audit row that could not be committed. The token of the row is not returned."""

    code = Reason.AUDIT


class AuditAltered(InstAccessError):
    """The error for an audit row, a checkpoint, a prune marker or a review that was modified."""

    code = Reason.AUDIT_ALTERED


class InvalidToken(InstAccessError):
    """The refusal of a token.

    `code` is the precise reason, for the log. Clients get one uniform response. `jti`, `user_uuid` and `client_id`
    come from the token, and are empty unless the signature of the token has been verified.
    """

    code = Reason.INVALID
    jti = user_uuid = client_id = ""


class NoToken(InvalidToken):
    """The refusal of a request that contains no bearer token. The request may contain other credentials."""

    code = Reason.NO_CREDENTIALS


class ForeignToken(InvalidToken):
    """The refusal of a bearer token that isn't an InstAccess token, or whose issuer is not accepted.

    An authenticator of the project may accept such a token.
    """

    code = Reason.FOREIGN_ISSUER


class TokenExpired(InvalidToken):
    """The refusal of an expired token. A token whose `exp` equals the current time has expired (RFC 7519 §4.1.4)."""

    code = Reason.EXPIRED


class TokenRevoked(InvalidToken):
    """The refusal of a token that was revoked singly, or together with all tokens of a user, an account or a key.

    The reason can also be a revocation of all tokens.
    """

    code = Reason.REVOKED
