"""The scopes of revocations, and the lookup of the revocation that covers an audit row.

The scope of a revocation is all tokens, or all tokens of a user, an account or a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Self

from django.contrib.auth import get_user_model
from django.db.models import Max, Q, QuerySet

from ..models import IssuedToken, Revocation
from ..users import existing_uuid
from .rows import filter_by_keys, issued_tokens

# With SQLite or MariaDB, an attacker can store a time in the wrong format. Reading the time raises these errors.
_INVALID_TIME = (ArithmeticError, AttributeError, TypeError, ValueError)


class Columns(NamedTuple):
    """The columns of an audit row that determine whether a revocation covers the row."""

    pk: int
    user_uuid: str
    real_user_uuid: str
    account_uuid: str
    signing_kid: str
    encryption_kid: str
    issued_at: datetime | None
    """The time of issue. None if an attacker has stored an invalid time in this row or in another row of the query.

    If the time is None, `Coverage.find` compares only the scopes, so every revocation of a matching scope covers the
    row.
    """


def read_columns(rows: QuerySet[IssuedToken]) -> list[Columns]:
    """Return the `Columns` of audit rows, ordered by id.

    If one of the rows contains an invalid time, `issued_at` is None for all rows. Raises DatabaseError if the query
    fails.
    """
    rows = rows.order_by("pk")
    try:
        return [Columns._make(values) for values in rows.values_list(*Columns._fields)]
    except _INVALID_TIME:
        return [Columns._make((*values, None)) for values in rows.values_list(*Columns._fields[:-1])]


def latest_issued_at(rows: QuerySet[IssuedToken]) -> datetime | None:
    """Return the latest time of issue in audit rows. Returns None if there are no rows or if a time is invalid."""
    try:
        latest: datetime | None = rows.order_by().aggregate(latest=Max("issued_at"))["latest"]
    except _INVALID_TIME:
        return None
    return latest


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of a revocation: all tokens, or all tokens of a user, an account or a key.

    A token belongs to a user if its subject or its real user is the user. A token belongs to a key if the token was
    signed with or encrypted for the key.

    Attributes:
        kind: ALL, USER, ACCOUNT or KEY.
        value: the uuid of the user, the uuid of the account, or the key id. Empty if the kind is ALL.
    """

    kind: Revocation.Kind
    value: str

    def __post_init__(self) -> None:
        # An empty string would match every token without a real user.
        if not self.value and self.kind != Revocation.Kind.ALL:
            raise ValueError("a scope needs a value")

    @classmethod
    def user(cls, uuid: str) -> Self:
        """Return the scope of a user."""
        return cls(Revocation.Kind.USER, uuid)

    @classmethod
    def account(cls, uuid: str) -> Self:
        """Return the scope of an account."""
        return cls(Revocation.Kind.ACCOUNT, uuid)

    @classmethod
    def key(cls, kid: str) -> Self:
        """Return the scope of a key."""
        return cls(Revocation.Kind.KEY, kid)

    @classmethod
    def everything(cls) -> Self:
        """Return the scope of all tokens."""
        return cls(Revocation.Kind.ALL, "")

    @classmethod
    def of(cls, revocation: Revocation) -> Self:
        """Return the scope of a recorded revocation."""
        return cls(Revocation.Kind(revocation.kind), revocation.value)


class Coverage:
    """An index of the revocations of scopes, to look up the revocation that covers an audit row."""

    def __init__(self, revocations: Iterable[Revocation]) -> None:
        self._by_scope: dict[tuple[str, str], list[Revocation]] = {}
        for revocation in revocations:
            self._by_scope.setdefault((revocation.kind, revocation.value), []).append(revocation)

    def filter(self) -> Q:
        """Return a filter for audit rows that a revocation may cover.

        Pass each row to `find` afterwards, because some databases ignore case.
        """
        if (Revocation.Kind.ALL, "") in self._by_scope:
            return Q(pk__isnull=False)
        users, accounts, keys = (
            [value for kind_, value in self._by_scope if kind_ == kind]
            for kind in (Revocation.Kind.USER, Revocation.Kind.ACCOUNT, Revocation.Kind.KEY)
        )
        by_user = Q(user_uuid__in=users) | Q(real_user_uuid__in=users)
        return by_user | Q(account_uuid__in=accounts) | filter_by_keys(keys)

    def is_in_scope(self, row: Columns) -> bool:
        """Return whether an audit row belongs to one of the scopes, for any time of issue."""
        return any(scope in self._by_scope for scope in _scopes(row))

    def find(self, row: Columns) -> Revocation | None:
        """Return the earliest revocation that covers an audit row, or None if no revocation covers the row."""
        iat = 0 if row.issued_at is None else int(row.issued_at.timestamp())
        covering = (
            revocation
            for scope in _scopes(row)
            for revocation in self._by_scope.get(scope, ())
            if revocation.latest_iat is None or iat <= revocation.latest_iat
        )
        return min(covering, key=lambda each: each.number, default=None)


def _scopes(row: Columns) -> Iterator[tuple[str, str]]:
    yield Revocation.Kind.ALL, ""
    yield Revocation.Kind.USER, row.user_uuid
    yield Revocation.Kind.USER, row.real_user_uuid
    yield Revocation.Kind.ACCOUNT, row.account_uuid
    yield Revocation.Kind.KEY, row.signing_kid
    yield Revocation.Kind.KEY, row.encryption_kid


def scopes_of_user(user: str) -> list[Scope]:
    """Return the scopes of all users with the user name `user`, and of the user with the uuid `user`.

    A uuid is searched for only in the audit log. Returns an empty list if no user is found.
    """
    model = get_user_model()
    named = model._default_manager.filter(**{model.USERNAME_FIELD: user})
    uuids = {_stored("user_uuid", user), _stored("real_user_uuid", user), *map(existing_uuid, named)}
    return [Scope.user(uuid) for uuid in sorted(uuids - {""})]


def scopes_of_account(uuid: str) -> list[Scope]:
    """Return a list with the scope of the account with this uuid.

    Returns an empty list if the audit log contains no token of the account.
    """
    stored = _stored("account_uuid", uuid)
    return [Scope.account(stored)] if stored else []


def _stored(column: str, value: str) -> str:
    """Return a value with the capitalization of the audit log, or "" if no row contains the value.

    The capitalization can differ, because MariaDB ignores case in comparisons.
    """
    rows = issued_tokens().filter(**{column: value}).order_by()
    return rows.values_list(column, flat=True).first() or ""
