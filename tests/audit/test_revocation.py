"""Which tokens are alive, how they are revoked, and which rows may go."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from instaccess import signals, users
from instaccess.audit import revocation
from instaccess.audit import rows as audit_rows
from instaccess.keys import keks_for_revocation
from instaccess.models import IssuedToken
from instaccess.trust import denylist

pytestmark = pytest.mark.django_db


@pytest.fixture
def heard():
    """What receivers of the signal were told."""
    told: list[dict[str, Any]] = []

    def receive(sender: Any, jtis: Any, reason: Any, by: Any, **kwargs: Any) -> None:
        told.append({"sender": sender, "jtis": jtis, "reason": reason, "by": by})

    signals.tokens_revoked.connect(receive)
    yield told
    signals.tokens_revoked.disconnect(receive)


class TestALiveToken:
    def test_is_neither_revoked_nor_expired(self, row):
        alive = row()
        row(revoked_at=timezone.now())
        row(age=3600)
        row(age=90_000)

        assert list(audit_rows.live_tokens()) == [alive]

    def test_lives_to_its_last_second(self, row):
        assert audit_rows.live_tokens().filter(pk=row(age=3590).pk).exists()

    def test_lives_as_long_as_the_leeway_lets_it(self, row, settings):
        late = row(age=3700)
        assert not audit_rows.live_tokens().exists()
        settings.INSTACCESS = {"LEEWAY": 200}

        assert list(audit_rows.live_tokens()) == [late]

    def test_may_come_from_a_clock_that_runs_ahead(self, row):
        assert audit_rows.live_tokens().filter(pk=row(age=-50).pk).exists()

    def test_is_found_by_an_index(self, row):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            list(audit_rows.live_tokens())

        assert "issued_at" in queries.captured_queries[0]["sql"].split("WHERE")[1]


class TestTheTokensOfAUser:
    def test_are_those_about_them_by_name_and_by_uuid(self, row, user):
        theirs = row()
        row(user=get_user_model().objects.create_user("grace"), user_uuid=str(uuid.uuid4()))

        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user("ada"))) == [theirs]
        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user(users.user_uuid(user)))) == [theirs]

    def test_are_those_they_got_for_somebody_else_too(self, row, user):
        grace = get_user_model().objects.create_user("grace")
        got = row(
            user=grace,
            user_uuid=users.user_uuid(grace),
            real_user=user,
            real_user_uuid=users.user_uuid(user),
        )

        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user("ada"))) == [got]
        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user(users.user_uuid(user)))) == [got]

    def test_are_found_by_uuid_after_the_user_is_gone(self, row, user):
        theirs, name = row(), users.user_uuid(user)
        user.delete()

        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user(name))) == [theirs]

    def test_are_none_for_a_name_that_nobody_has(self, row):
        row()

        for name in ("nobody", "", "%", "ada' OR '1'='1", "a" * 5000, "\u0130"):
            assert not audit_rows.live_tokens().filter(audit_rows.filter_by_user(name)).exists()

    def test_under_keys_are_those_signed_or_encrypted_with_one(self, row):
        signed, encrypted = row(signing_kid="bad"), row(encryption_kid="bad")
        row()

        assert set(audit_rows.live_tokens().filter(audit_rows.filter_by_keys(["bad"]))) == {signed, encrypted}
        assert not audit_rows.live_tokens().filter(audit_rows.filter_by_keys([])).exists()


class TestRevoke:
    def test_marks_them_with_when_why_and_by_whom_and_says_how_many(self, row, user):
        rows = [row() for _ in range(3)]
        now = timezone.now()

        assert (
            revocation.revoke(audit_rows.live_tokens(), keks=keks_for_revocation(), reason="stolen", by=user, now=now)
            == 3
        )
        for each in rows:
            each.refresh_from_db()
            assert (each.revoked_at, each.revocation_reason, each.revoked_by) == (now, "stolen", "ada")

    def test_puts_them_on_the_deny_list(self, row):
        denied, other = row(), row()
        revocation.revoke(audit_rows.live_tokens().filter(pk=denied.pk), keks=keks_for_revocation(), reason="stolen")

        assert denylist.read_database() == {str(denied.jti)}
        assert str(other.jti) not in denylist.read_database()

    def test_leaves_the_first_revocation_of_a_token_as_it_was(self, row, user, heard):
        earlier = timezone.now() - timedelta(minutes=5)
        first = row(revoked_at=earlier, revocation_reason="first")

        assert (
            revocation.revoke(audit_rows.issued_tokens(), keks=keks_for_revocation(), reason="second", by=user) == 0
        )
        first.refresh_from_db()
        assert (first.revoked_at, first.revocation_reason, first.revoked_by) == (earlier, "first", "")

    def test_of_nothing_does_nothing(self, heard):
        assert revocation.revoke(audit_rows.live_tokens(), keks=keks_for_revocation(), reason="x") == 0
        assert heard == []

    def test_cuts_a_reason_that_is_too_long(self, row):
        each = row()
        revocation.revoke(audit_rows.live_tokens(), keks=keks_for_revocation(), reason="r" * 1000)

        each.refresh_from_db()
        assert each.revocation_reason == "r" * 255

    def test_goes_through_many_in_batches(self, row, monkeypatch, heard):
        monkeypatch.setattr(revocation, "BATCH", 2)
        rows = [row() for _ in range(5)]

        assert revocation.revoke(audit_rows.live_tokens(), keks=keks_for_revocation(), reason="x") == 5
        assert [len(told["jtis"]) for told in heard] == [2, 2, 1]
        assert {jti for told in heard for jti in told["jtis"]} == {str(each.jti) for each in rows}

    def test_tells_receivers_of_the_signal(self, row, user, heard):
        each = row()
        revocation.revoke(audit_rows.live_tokens(), keks=keks_for_revocation(), reason="stolen", by=user)

        assert heard == [{"sender": IssuedToken, "jtis": [str(each.jti)], "reason": "stolen", "by": user}]

    def test_is_not_undone_by_a_receiver_that_fails(self, row, caplog, heard):
        def fail(**kwargs: Any) -> None:
            raise RuntimeError("no route to SIEM")

        signals.tokens_revoked.connect(fail)
        try:
            each = row()
            assert revocation.revoke(audit_rows.live_tokens(), keks=keks_for_revocation(), reason="x") == 1
        finally:
            signals.tokens_revoked.disconnect(fail)

        each.refresh_from_db()
        assert each.revoked_at is not None
        assert len(heard) == 1
        assert "no route to SIEM" in caplog.text

    def test_is_told_in_the_log(self, row, user, caplog):
        each = row()
        revocation.revoke(audit_rows.live_tokens(), keks=keks_for_revocation(), reason="stolen\nFAKE LINE", by=user)

        assert str(each.jti) in caplog.text
        assert "stolen\\nFAKE LINE" in caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["a\x00b", "a\ud800b"])
def test_a_reason_that_no_database_takes_stops_no_revocation(row, reason):
    made = row()

    assert revocation.revoke(audit_rows.revocable_tokens(), keks=keks_for_revocation(), reason=reason) == 1
    made.refresh_from_db()
    assert made.revocation_reason == "a\N{REPLACEMENT CHARACTER}b"
