"""Tests of unreadable audit rows. Each function processes readable rows as usual, and logs unreadable rows."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from django.db import connection
from django.utils import timezone

from instaccess import signals, users
from instaccess.audit import names, revocation, row_hmac, rows
from instaccess.audit.evidence import reauthentication
from instaccess.audit.evidence.checkpoints import seal
from instaccess.audit.names import ERASED
from instaccess.audit.row_hmac import HmacStatus
from instaccess.conf import conf
from instaccess.keys import evidence_keys
from instaccess.models import Checkpoint, IssuedToken

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class Pair(NamedTuple):
    """Two audit rows of one user. `unreadable` contains the values from before the row became unreadable."""

    readable: IssuedToken
    unreadable: IssuedToken


@pytest.fixture(params=[("issued_at", "zzz"), ("issued_at", "2026-99-99 00:00:00"), ("jti", "zzz")])
def pair(request: pytest.FixtureRequest, initial_keys: Any, row: Any) -> Pair:
    """Make a row unreadable: Django reads `zzz` as None where a time is expected, and can't read the other values."""
    column, text = request.param
    now = timezone.now()
    made = Pair(row(issued_at=now), row(issued_at=now))
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE instaccess_issuedtoken SET {column} = %s WHERE id = %s", [text, made.unreadable.pk])
    return made


def stored(row: IssuedToken, column: str) -> Any:
    """Return the value of a column that is readable even in an unreadable row."""
    return IssuedToken.objects.values_list(column, flat=True).get(pk=row.pk)


def statuses(row: IssuedToken) -> set[HmacStatus]:
    """Return the statuses of both HMACs of a readable row."""
    row.refresh_from_db()
    return {row_hmac.row_status(row, conf.key_encryption_keys), names.names_status(row, conf.key_encryption_keys)}


class TestUnreadableRows:
    def test_revoke_revokes_the_tokens_of_readable_and_unreadable_rows_and_logs_the_unreadable_row(
        self, pair, caplog, django_capture_on_commit_callbacks
    ):
        announced: list[str] = []

        def receive(jtis: list[str], **kwargs: Any) -> None:
            announced.extend(jtis)

        signals.tokens_revoked.connect(receive)
        try:
            with django_capture_on_commit_callbacks(execute=True):
                count = revocation.revoke(rows.revocable_tokens(), keks=conf.key_encryption_keys, reason="stolen")
        finally:
            signals.tokens_revoked.disconnect(receive)

        assert count == 2
        assert {stored(row, "revocation_reason") for row in pair} == {"stolen"}
        assert statuses(pair.readable) == {HmacStatus.AUTHENTIC}
        assert stored(pair.unreadable, "mac") == pair.unreadable.mac
        assert announced == [str(pair.readable.jti)]
        assert "these rows can't be read and get no new HMAC, but their tokens are revoked" in caplog.text
        assert f"(rows: [{pair.unreadable.pk}])" in caplog.text

    @pytest.mark.parametrize("column", ["revoked_at", "expires_at"])
    def test_revoke_does_not_log_an_unreadable_row_of_a_token_that_is_already_revoked_or_expired(
        self, pair, caplog, column
    ):
        earlier = timezone.now() - timedelta(days=1)
        IssuedToken.objects.filter(pk=pair.unreadable.pk).update(**{column: earlier})

        assert revocation.revoke(rows.issued_tokens(), keks=conf.key_encryption_keys, reason="stolen") == 1
        assert "can't be read" not in caplog.text
        assert stored(pair.unreadable, "revocation_reason") == ""

    def test_erase_erases_the_names_in_readable_and_unreadable_rows_and_logs_the_unreadable_row(
        self, pair, user, caplog
    ):
        count = names.erase(users.user_uuid(user), keks=conf.key_encryption_keys, by="root (command line)")

        assert count == 2
        assert {stored(row, "user_name") for row in pair} == {ERASED}
        assert statuses(pair.readable) == {HmacStatus.AUTHENTIC}
        assert stored(pair.unreadable, "names_mac") == pair.unreadable.names_mac
        assert f"and are not replaced: [{pair.unreadable.pk}]" in caplog.text

    def test_reauthenticate_renews_the_hmacs_of_readable_rows_and_logs_the_unreadable_row(
        self, pair, settings, caplog
    ):
        new, old = secrets.token_urlsafe(32), "SECRET_KEY"
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new, old]}

        # A row has two HMACs: one HMAC covers the row, and the other HMAC covers the user names.
        assert reauthentication.reauthenticate(evidence_keys()) == 2

        assert f"unreadable rows get no new HMAC: [{pair.unreadable.pk}]" in caplog.text
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new]}
        assert statuses(pair.readable) == {HmacStatus.AUTHENTIC}

    def test_seal_covers_readable_and_unreadable_rows_and_logs_the_unreadable_row(self, pair, caplog):
        [made] = seal(evidence_keys(), now=timezone.now() + timedelta(days=1)).made

        assert (made.rows, made.altered) == (2, 1)
        lines = Checkpoint.objects.get().index.split("\n")
        assert lines[1] == f"{pair.unreadable.pk} unreadable altered"
        assert lines[0].startswith(f"{pair.readable.pk} ")
        assert not lines[0].endswith("altered")
        assert f"covers rows whose HMAC doesn't match: [{pair.unreadable.pk}]" in caplog.text
