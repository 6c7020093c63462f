"""Checkpoints over the audit: what they cover, when, and that somebody else can check them."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from joserfc import jws as joserfc_jws
from joserfc.jwk import RSAKey

from instaccess.audit import revocation, row_hmac
from instaccess.audit import rows as audit_rows
from instaccess.audit.evidence import checkpoints, statements, verification
from instaccess.audit.evidence.checkpoints import SETTLED, seal
from instaccess.conf import conf
from instaccess.exceptions import AuditAltered, InvalidToken, KeyUnavailable
from instaccess.issuer import issuing
from instaccess.keys import evidence_keys, keks_for_revocation, lifecycle, ring
from instaccess.models import Checkpoint, IssuedToken, Key
from instaccess.tokens import compact, jose

pytestmark = pytest.mark.django_db

DAY = 86_400
# Far from midnight on both sides of SETTLED: a checkpoint ends there.
NOON = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


@pytest.fixture
def rows(row, initial_keys, time_machine):
    """Makes rows of tokens issued so many seconds ago, in this order."""
    time_machine.move_to(NOON, tick=False)
    return lambda *ages: [row(age=age) for age in ages]


def covered() -> list[tuple[int, int]]:
    read = [statements.read_checkpoint(checkpoint, evidence_keys()) for checkpoint in checkpoints.checkpoints()]
    return [(statement.number, statement.rows) for statement in read]


class TestSealing:
    def test_covers_every_row_that_cannot_change_any_more(self, rows):
        old = rows(9000, 8000, SETTLED + 1)
        young = rows(SETTLED - 1, 60)

        done = seal(evidence_keys())

        (made,) = done.made
        assert (made.number, made.rows, made.first, made.last) == (1, 3, old[0].pk, old[-1].pk)
        assert done.waiting == len(young)
        assert done.ready_at == young[0].issued_at + timedelta(seconds=SETTLED)

    def test_goes_on_after_the_last_checkpoint(self, rows, time_machine):
        rows(9000)
        (first,) = seal(evidence_keys()).made
        rows(0)
        time_machine.shift(SETTLED + 1)

        (second,) = seal(evidence_keys()).made

        assert (second.number, second.previous, second.rows) == (2, first.digest, 1)

    def test_of_nothing_makes_nothing(self, initial_keys, rows):
        assert seal(evidence_keys()) == checkpoints.Sealed((), 0, None)
        rows(60)
        assert seal(evidence_keys()).made == ()
        assert not Checkpoint.objects.exists()

    def test_stops_at_the_first_row_that_may_still_change(self, rows):
        # Ids and times do not rise together: a row that was slow to commit stands between.
        rows(9000, 60, 8000)

        assert [made.rows for made in seal(evidence_keys()).made] == [1]

    def test_ends_a_checkpoint_at_midnight_so_that_old_days_can_be_pruned(self, rows):
        # The last but one was overtaken over midnight by the one before.
        midnight = 15 * 3600
        rows(midnight + 50, midnight + 20, midnight - 1, midnight + 1, midnight - 30)
        seal(evidence_keys())

        assert covered() == [(1, 2), (2, 3)]

    def test_ends_a_checkpoint_where_it_is_told_to(self, rows):
        rows(9000, 8000, 7000)
        seal(evidence_keys(), cut=NOON - timedelta(seconds=7500))

        assert covered() == [(1, 2), (2, 1)]

    def test_takes_no_more_rows_than_fit_into_memory(self, rows, monkeypatch):
        monkeypatch.setattr(checkpoints, "ROWS", 4)
        rows(*range(9100, 9000, -10))
        seal(evidence_keys())

        assert covered() == [(1, 4), (2, 4), (3, 2)]

    def test_of_many_small_days_is_not_torn_at_the_ends_of_pages(self, rows, monkeypatch):
        monkeypatch.setattr(checkpoints, "ROWS", 4)
        rows(*(day * DAY + second for day in (5, 4, 3) for second in (3, 2, 1)))
        seal(evidence_keys())

        assert covered() == [(1, 3), (2, 3), (3, 3)]

    def test_needs_a_signing_key(self, row):
        row(age=9000)

        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            seal(evidence_keys())

    def test_says_which_rows_did_not_fit_their_hmac(self, rows):
        edited = rows(9000, 8000)[1]
        IssuedToken.objects.filter(pk=edited.pk).update(user_agent="nobody")

        (made,) = seal(evidence_keys()).made

        assert made.altered == 1
        assert [entry.row for entry in statements.entries(Checkpoint.objects.get().index) if entry.altered] == [
            edited.pk
        ]

    def test_never_covers_a_row_that_is_revoked_later(self, rows, time_machine):
        each = rows(0)[0]
        chosen = audit_rows.revocable_tokens()
        list(chosen)
        time_machine.shift(SETTLED + 1)
        seal(evidence_keys())

        # Whoever chose it an hour ago comes too late: it has long been dead.
        assert (
            revocation.revoke(IssuedToken.objects.filter(pk=each.pk), keks=keks_for_revocation(), reason="late") == 0
        )
        assert verification.verify(evidence_keys()).broken == ""

    @pytest.mark.django_db(transaction=True)
    def test_by_several_at_once_makes_one_chain(self, row, initial_keys):
        for day in range(8, 2, -1):
            row(age=day * DAY)
        errors: list[BaseException] = []

        def run() -> None:
            try:
                seal(evidence_keys())
            except BaseException as error:
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seal(evidence_keys())

        assert errors == []
        assert sum(rows for _, rows in covered()) == 6
        assert verification.verify(evidence_keys()).broken == ""


class TestACheckpoint:
    def test_is_a_jws_by_the_signing_key_that_others_can_check(self, rows):
        made = rows(9000, 8000)
        seal(evidence_keys())

        checkpoint = Checkpoint.objects.get()
        signing = Key.objects.get(use="sig", status="current")
        key = RSAKey.import_key({"kty": "RSA", "n": signing.public_jwk["n"], "e": signing.public_jwk["e"]})
        opened = joserfc_jws.deserialize_compact(checkpoint.jws, key)
        said = json.loads(opened.payload)
        assert opened.headers() == {"typ": "instaccess-checkpoint", "alg": "RS256", "kid": signing.kid}
        assert (said["rows"], said["last"], said["previous"]) == (2, made[-1].pk, "")
        leaves = [hashlib.sha256(b"%d\n" % each.pk + row_hmac.canonical_bytes(each)).digest() for each in made]
        assert said["digest"] == hashlib.sha256(b"".join(leaves)).hexdigest()

    def test_is_no_token_and_no_token_is_one(self, rows, user, application):
        rows(9000)
        seal(evidence_keys())
        public = ring.current_ring().verification_keys()
        with pytest.raises(InvalidToken):
            jose.verify(Checkpoint.objects.get().jws, public)

        _, token = issuing.issue(
            user=user,
            origin=issuing.Origin(canvas_domain="canvas.example.edu"),
            now=timezone.now().timestamp(),
            encrypted=False,
        )
        with pytest.raises(AuditAltered, match="signature"):
            statements.read_signed(token, "", evidence_keys(), name="it")

    def test_holds_when_its_key_is_past_revoked_or_erased(self, rows):
        rows(9000)
        seal(evidence_keys())
        lifecycle.rotate(Key.Use.SIGNING, force=True)
        lifecycle.revoke(Key.objects.get(use="sig", status="past").kid, reason="lost")

        assert verification.verify(evidence_keys()).broken == ""

    def test_signed_by_a_key_that_somebody_put_into_the_database_does_not_hold(self, rows, rsa_pool):
        rows(9000)
        seal(evidence_keys())
        # Somebody who can write the database: a key of their own, a row changed, and all signed anew.
        theirs = rsa_pool.take("sig")
        kid = theirs.thumbprint()
        public = {**theirs.export_public(as_dict=True), "kid": kid, "use": "sig"}
        Key.objects.create(kid=kid, use="sig", status="past", public_jwk=public)
        checkpoint = Checkpoint.objects.get()
        payload = json.dumps(compact.json_object(compact.split_compact(checkpoint.jws, 3)[1], "it")).encode()
        checkpoint.jws = jose.sign(payload, theirs, kid=kid, typ=statements.CHECKPOINT)
        checkpoint.save()

        assert verification.verify(evidence_keys()).broken == "checkpoint 1 was altered: its HMAC does not fit"


class TestResealing:
    def test_makes_the_hmacs_anew_so_that_the_old_key_can_go(self, rows, settings, time_machine):
        rows(9000, 60)
        seal(evidence_keys())
        old, new = "SECRET_KEY", secrets.token_urlsafe(32)
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new, old]}
        # One checkpoint, and the row that is not sealed. The sealed one has its checkpoint.
        assert checkpoints.reauthenticate(evidence_keys()) == 2
        assert checkpoints.reauthenticate(evidence_keys()) == 0

        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new]}
        report = verification.verify(evidence_keys())
        assert (report.broken, report.rows) == ("", 2)

    def test_does_not_cover_up_what_was_edited(self, rows, settings):
        edited = rows(60)[0]
        IssuedToken.objects.filter(pk=edited.pk).update(user_agent="nobody")
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}

        assert checkpoints.reauthenticate(evidence_keys()) == 0
        assert verification.verify(evidence_keys()).row == edited.pk

    def test_that_was_forgotten_is_named_with_what_to_do(self, rows, settings):
        rows(9000)
        seal(evidence_keys())
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}

        report = verification.verify(evidence_keys())

        assert "KEY_ENCRYPTION_KEYS" in report.broken
        assert "reseal" in report.broken

    def test_takes_as_many_as_there_are(self, rows, settings):
        rows(*([60] * 203))
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}

        assert checkpoints.reauthenticate(evidence_keys()) == 203
        keks = conf.key_encryption_keys[:1]
        for each in IssuedToken.objects.all():
            assert row_hmac.check(row_hmac.canonical_bytes(each), each.mac, keks) is row_hmac.HmacStatus.AUTHENTIC


def test_a_token_is_settled_only_when_nobody_could_revoke_it(row: Any, initial_keys: Any) -> None:
    each = row(age=SETTLED)

    assert each not in audit_rows.revocable_tokens()
    # Nor by a machine whose clock is ten minutes behind.
    assert each not in audit_rows.revocable_tokens(now=timezone.now() - timedelta(minutes=10))
