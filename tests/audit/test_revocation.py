"""Tests of the revocation of tokens, and of the querysets of live tokens."""

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
from instaccess.audit import revocation, row_hmac
from instaccess.audit import rows as audit_rows
from instaccess.keys import keks_for_revocation
from instaccess.models import IssuedToken
from instaccess.trust import denylist

pytestmark = pytest.mark.django_db


@pytest.fixture
def received():
    """Yield a list to which the arguments of each `tokens_revoked` signal are added."""
    signals_sent: list[dict[str, Any]] = []

    def receive(sender: Any, signal: Any, **facts: Any) -> None:
        signals_sent.append({"sender": sender, **facts})

    signals.tokens_revoked.connect(receive)
    yield signals_sent
    signals.tokens_revoked.disconnect(receive)


@pytest.fixture
def revoke(django_capture_on_commit_callbacks: Any) -> Any:
    """Return a function that calls `revocation.revoke` and then runs the on-commit callbacks."""

    def revoke_(*args: Any, **kwargs: Any) -> int:
        with django_capture_on_commit_callbacks(execute=True):
            return revocation.revoke(*args, keks=keks_for_revocation(), **kwargs)

    return revoke_


class TestLiveTokens:
    def test_live_tokens_contains_no_revoked_or_expired_tokens(self, row):
        alive = row()
        row(revoked_at=timezone.now())
        row(age=3600)
        row(age=90_000)

        assert list(audit_rows.live_tokens()) == [alive]

    def test_live_tokens_contains_a_token_ten_seconds_before_its_expiry(self, row):
        assert audit_rows.live_tokens().filter(pk=row(age=3590).pk).exists()

    def test_live_tokens_contains_an_expired_token_within_the_leeway(self, row, settings):
        late = row(age=3700)
        assert not audit_rows.live_tokens().exists()
        settings.INSTACCESS = {"LEEWAY": 200}

        assert list(audit_rows.live_tokens()) == [late]

    def test_live_tokens_contains_a_token_issued_by_a_server_whose_clock_is_fast(self, row):
        assert audit_rows.live_tokens().filter(pk=row(age=-50).pk).exists()

    def test_live_tokens_filters_by_an_indexed_column(self, row):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            list(audit_rows.live_tokens())

        assert "issued_at" in queries.captured_queries[0]["sql"].split("WHERE")[1]


class TestFilterByUserAndKeys:
    def test_filter_by_user_matches_the_subject_by_name_and_by_uuid(self, row, user):
        theirs = row()
        row(user=get_user_model().objects.create_user("grace"), user_uuid=str(uuid.uuid4()))

        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user("ada"))) == [theirs]
        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user(users.user_uuid(user)))) == [theirs]

    def test_filter_by_user_matches_the_real_user_of_a_masquerade(self, row, user):
        grace = get_user_model().objects.create_user("grace")
        got = row(
            user=grace,
            user_uuid=users.user_uuid(grace),
            real_user=user,
            real_user_uuid=users.user_uuid(user),
        )

        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user("ada"))) == [got]
        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user(users.user_uuid(user)))) == [got]

    def test_filter_by_user_matches_the_uuid_of_a_deleted_user(self, row, user):
        theirs, name = row(), users.user_uuid(user)
        user.delete()

        assert list(audit_rows.live_tokens().filter(audit_rows.filter_by_user(name))) == [theirs]

    def test_filter_by_user_matches_no_token_for_an_unknown_name(self, row):
        row()

        for name in ("nobody", "", "%", "ada' OR '1'='1", "a" * 5000, "\u0130"):
            assert not audit_rows.live_tokens().filter(audit_rows.filter_by_user(name)).exists()

    def test_filter_by_keys_matches_tokens_that_were_signed_with_or_encrypted_for_a_key(self, row):
        signed, encrypted = row(signing_kid="bad"), row(encryption_kid="bad")
        both = row(signing_kid="bad", encryption_kid="bad")
        row()

        assert set(audit_rows.live_tokens().filter(audit_rows.filter_by_keys(["bad"]))) == {signed, encrypted, both}
        assert not audit_rows.live_tokens().filter(audit_rows.filter_by_keys([])).exists()


class TestRevoke:
    def test_revoke_stores_time_reason_and_user_and_returns_the_number_of_tokens(self, row, user):
        rows = [row() for _ in range(3)]
        now = timezone.now()

        assert (
            revocation.revoke(audit_rows.live_tokens(), keks=keks_for_revocation(), reason="stolen", by=user, now=now)
            == 3
        )
        for each in rows:
            each.refresh_from_db()
            assert (each.revoked_at, each.revocation_reason, each.revoked_by) == (now, "stolen", "ada")

    def test_revoke_adds_the_tokens_to_the_deny_list(self, row):
        denied, other = row(), row()
        revocation.revoke(audit_rows.live_tokens().filter(pk=denied.pk), keks=keks_for_revocation(), reason="stolen")

        assert denylist.read_database() == {str(denied.jti)}
        assert str(other.jti) not in denylist.read_database()

    def test_revoke_does_not_change_an_earlier_revocation(self, row, user, received):
        earlier = timezone.now() - timedelta(minutes=5)
        first = row(revoked_at=earlier, revocation_reason="first")

        assert (
            revocation.revoke(audit_rows.issued_tokens(), keks=keks_for_revocation(), reason="second", by=user) == 0
        )
        first.refresh_from_db()
        assert (first.revoked_at, first.revocation_reason, first.revoked_by) == (earlier, "first", "")

    def test_revoke_sends_no_signal_if_no_token_matches(self, revoke, received):
        assert revoke(audit_rows.live_tokens(), reason="x") == 0
        assert received == []

    def test_revoke_shortens_a_long_reason(self, row):
        each = row()
        revocation.revoke(audit_rows.live_tokens(), keks=keks_for_revocation(), reason="r" * 1000)

        each.refresh_from_db()
        assert each.revocation_reason == "r" * 255

    def test_revoke_revokes_many_tokens_in_batches_with_one_signal_per_batch(
        self, revoke, row, monkeypatch, received
    ):
        monkeypatch.setattr(revocation, "BATCH", 2)
        rows = [row() for _ in range(5)]

        assert revoke(audit_rows.live_tokens(), reason="x") == 5
        assert [len(call["jtis"]) for call in received] == [2, 2, 1]
        assert {jti for call in received for jti in call["jtis"]} == {str(each.jti) for each in rows}

    @pytest.mark.parametrize("by", ["a user", "uid 0 (root), command line", None])
    def test_revoke_sends_a_signal_with_the_jtis_and_their_count_and_the_reason_and_the_operator(
        self, by, revoke, row, user, received
    ):
        each = row()
        revoke(audit_rows.live_tokens(), reason="stolen", by=user if by == "a user" else by)

        name, pk = ("ada", user.pk) if by == "a user" else (by or "", None)
        facts = {"jtis": [str(each.jti)], "count": 1, "reason": "stolen", "by": name, "by_user_id": pk}
        assert received == [{"sender": IssuedToken, **facts}]

    def test_revoke_sends_a_signal_without_the_tokens_that_another_process_revoked_at_the_same_time(
        self, revoke, row, received, monkeypatch
    ):
        theirs, mine = row(), row()
        load = row_hmac.load

        def revoke_meanwhile(rows: Any) -> Any:
            loaded = load(rows)
            IssuedToken.objects.filter(pk=theirs.pk).update(revoked_at=timezone.now() - timedelta(seconds=1))
            return loaded

        monkeypatch.setattr(row_hmac, "load", revoke_meanwhile)

        assert revoke(audit_rows.live_tokens(), reason="x") == 1
        assert [call["jtis"] for call in received] == [[str(mine.jti)]]

    def test_revoke_still_revokes_the_token_if_a_receiver_of_the_signal_fails(self, revoke, row, caplog, received):
        def fail(**kwargs: Any) -> None:
            raise RuntimeError("no route to SIEM")

        signals.tokens_revoked.connect(fail)
        try:
            each = row()
            assert revoke(audit_rows.live_tokens(), reason="x") == 1
        finally:
            signals.tokens_revoked.disconnect(fail)

        each.refresh_from_db()
        assert each.revoked_at is not None
        assert len(received) == 1
        assert "fail of signal tokens_revoked failed: RuntimeError" in caplog.text

    def test_revoke_logs_the_jtis_and_the_escaped_reason(self, revoke, row, user, caplog):
        each = row()
        revoke(audit_rows.live_tokens(), reason="stolen\nFAKE LINE", by=user)

        assert str(each.jti) in caplog.text
        assert "stolen\\nFAKE LINE" in caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["a\x00b", "a\ud800b"])
def test_revoke_replaces_characters_of_the_reason_that_databases_refuse(row, reason):
    made = row()

    assert revocation.revoke(audit_rows.revocable_tokens(), keks=keks_for_revocation(), reason=reason) == 1
    made.refresh_from_db()
    assert made.revocation_reason == "a\N{REPLACEMENT CHARACTER}b"
