"""The signals of this app, and the facts that receivers get. docs/signals.md describes when each signal is sent.

The facts are keyword arguments of the receivers: strings, numbers and times. No fact is a token, a secret or a part
of a key. A receiver that fails doesn't affect the request, the command or the other receivers. The failure is logged.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypedDict, TypeVar

from django.db import transaction
from django.dispatch import Signal

from .logs import Logger, get_logger


class TokenIssued(TypedDict):
    """The facts of `token_issued`.

    Attributes:
        jti: the token id, as in the audit row.
        user_id, user_uuid: the primary key and the uuid of the subject.
        real_user_id, real_user_uuid: the user who masquerades as the subject. None and "" if no user masquerades.
        client_id: the client id of the OAuth2 application, or "".
        account_uuid, canvas_domain: the claims `acct` and `canvas_domain`.
        signing_kid, encryption_kid: the ids of the keys. `encryption_kid` is "" for an unencrypted token.
        ip_address: the address of the client, or None if the address is unknown.
        issued_at, expires_at: the claims `iat` and `exp`, in UTC.
    """

    jti: str
    user_id: Any
    user_uuid: str
    real_user_id: Any
    real_user_uuid: str
    client_id: str
    account_uuid: str
    canvas_domain: str
    signing_kid: str
    encryption_kid: str
    ip_address: str | None
    issued_at: datetime
    expires_at: datetime


class TokenRefused(TypedDict):
    """The facts of `token_refused`. Facts that are unknown to the role are None or "".

    Attributes:
        role: the role that refused the request: `issuer`, `gateway` or `service`.
        reason: the reason code, as in the log. Clients never receive this code.
        status: the status of the response. A status of 500 or more is a server-side error.
        user_id: the primary key of the authenticated user. None if the gateway or a service refused the request.
        user_uuid, client_id: the user and the application, from the tables or from a token with a valid signature.
        jti: the token id, from a token with a valid signature.
        ip_address: the address of the client, or None if the address is unknown.
    """

    role: str
    reason: str
    status: int
    user_id: Any
    user_uuid: str
    client_id: str
    jti: str
    ip_address: str | None


class TokensRevoked(TypedDict):
    """The facts of `tokens_revoked`.

    Attributes:
        jtis: the token ids of the revoked tokens, at most a few hundred.
        count: the number of revoked tokens. This number is larger than the number of `jtis` if rows can't be read.
        reason: the reason that the operator gave for the revocation, or "".
        by: the operator, for example a user name or `uid 0 (root), command line`; "" if unknown.
        by_user_id: the primary key of the user who revoked the tokens, or None if the operator isn't a known user.
    """

    jtis: list[str]
    count: int
    reason: str
    by: str
    by_user_id: Any


class KeyChange(StrEnum):
    """The possible values of the fact `change` of `key_changed`."""

    GENERATED = "generated"
    IMPORTED = "imported"
    ACTIVATED = "activated"
    RETIRED = "retired"
    REVOKED = "revoked"
    ERASED = "erased"
    RESEALED = "resealed"
    DELETED = "deleted"


class KeyChanged(TypedDict):
    """The facts of `key_changed`.

    Attributes:
        kid, use: the id of the key, and its use: `sig` or `enc`.
        change: what happened to the key.
        status: the status of the key after the change: `future`, `current`, `past` or `revoked`.
        has_private: whether the private key is stored on this server after the change.
        reason, by, by_user_id: the reason and the operator of a revocation, as in `TokensRevoked`. For any other
            change, `reason` and `by` are "", and `by_user_id` is None.
    """

    kid: str
    use: str
    change: KeyChange
    status: str
    has_private: bool
    reason: str
    by: str
    by_user_id: Any


Facts = TypeVar("Facts", bound=Mapping[str, Any])


class FactSignal(Signal, Generic[Facts]):
    """A signal whose arguments are facts, and whose receivers can't raise an error in the code that sends the signal.

    Args:
        name: the name of the signal, for the log.
        logger: the logger for receivers that fail.
    """

    def __init__(self, name: str, logger: Logger) -> None:
        super().__init__()
        self.name = name
        self._logger = logger

    def announce(self, sender: Any, build_facts: Callable[[], Facts]) -> None:
        """Send the signal. If the signal has no receiver, the facts are not built, to save time.

        Call this method outside of `except` blocks. Within such a block, receivers and the log could reach the
        exception, whose frames may contain a token.
        """
        failure = ""
        results: list[tuple[Any, Any]] = []
        try:
            if not self.has_listeners(sender):
                return
            results = self.send_robust(sender, **build_facts())
        except Exception as error:
            failure = _describe(error)
        if failure:
            self._logger.error("signal %(signal)s could not be sent: %(detail)s", signal=self.name, detail=failure)
        for receiver, result in results:
            if isinstance(result, Exception):
                self._logger.error(
                    "receiver %(receiver)s of signal %(signal)s failed: %(detail)s",
                    receiver=_name_of(receiver),
                    signal=self.name,
                    error=type(result).__name__,
                    detail=_describe(result),
                )

    def announce_after_commit(self, sender: Any, build_facts: Callable[[], Facts], *, using: str) -> None:
        """Send the signal after the transaction on the database `using` was committed.

        If no transaction is open, the signal is sent immediately. If the transaction is rolled back, the signal is
        never sent.
        """
        if self.has_listeners(sender):
            transaction.on_commit(lambda: self.announce(sender, build_facts), using=using, robust=True)

    def _log_robust_failure(self, receiver: Any, err: Exception) -> None:
        """Do nothing, because `announce` logs the failure.

        Django's method would log the message of the error, and would fail for a receiver without a name.
        """


def _describe(error: Exception) -> str:
    """Return the class and the stack frames of an error.

    The message is left out, because the message may contain a secret of the receiver, such as the URL of a webhook.
    """
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    return f"{type(error).__name__}\n{frames}"


def _name_of(receiver: Any) -> str:
    """Return the name of a receiver, and not its `repr`, which could contain arguments such as a password."""
    named = receiver if hasattr(receiver, "__qualname__") else type(receiver)
    return f"{named.__module__}.{named.__qualname__}"


token_issued: FactSignal[TokenIssued] = FactSignal("token_issued", get_logger("instaccess.issuer"))
"""A signal that is sent after a token was issued and its audit row was committed. The sender is `IssuedToken`."""

token_refused: FactSignal[TokenRefused] = FactSignal("token_refused", get_logger("instaccess.refusals"))
"""A signal that is sent after the issuer, the gateway or the service refused a request. The sender is None."""

tokens_revoked: FactSignal[TokensRevoked] = FactSignal("tokens_revoked", get_logger("instaccess.revocation"))
"""A signal that is sent after the commit of each batch of revoked tokens. The sender is `IssuedToken`."""

key_changed: FactSignal[KeyChanged] = FactSignal("key_changed", get_logger("instaccess.keys"))
"""A signal that is sent after the commit of each change to a key. The sender is `Key`."""
