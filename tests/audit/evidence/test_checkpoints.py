"""Tests of checkpoints: the rows that `seal` covers, and the verification of a checkpoint by other software."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from joserfc import jws as joserfc_jws
from joserfc.jwk import RSAKey
from jwcrypto.common import base64url_encode

from instaccess.audit import revocation, row_hmac
from instaccess.audit import rows as audit_rows
from instaccess.audit.evidence import checkpoint_index, checkpoints, signatures, verification
from instaccess.audit.evidence.checkpoints import SETTLED, seal
from instaccess.exceptions import AuditAltered, InvalidToken, KeyUnavailable
from instaccess.issuer import issuing
from instaccess.keys import evidence_keys, keks_for_revocation, lifecycle, ring
from instaccess.models import Checkpoint, IssuedToken, Key
from instaccess.tokens import PrivateKey, compact, jose

from .conftest import DAY, covered_rows

pytestmark = pytest.mark.django_db

# A checkpoint never covers rows of two days. NOW is in the afternoon, so that all rows that are up to 15 hours old
# belong to the same day.
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


@pytest.fixture
def rows(row, initial_keys, time_machine):
    """Return a function that creates an audit row for each given age of a token, in seconds."""
    time_machine.move_to(NOW, tick=False)
    return lambda *ages: [row(age=age) for age in ages]


class TestSeal:
    def test_seal_covers_every_row_that_can_no_longer_change(self, rows):
        old = rows(9000, 8000, SETTLED + 1)
        young = rows(SETTLED - 1, 60)

        done = seal(evidence_keys())

        (made,) = done.made
        assert (made.number, made.rows, made.first, made.last) == (1, 3, old[0].pk, old[-1].pk)
        assert done.waiting == len(young)
        assert done.ready_at == young[0].issued_at + timedelta(seconds=SETTLED)

    def test_seal_continues_after_the_last_checkpoint(self, rows, time_machine):
        rows(9000)
        (first,) = seal(evidence_keys()).made
        rows(0)
        time_machine.shift(SETTLED + 1)

        (second,) = seal(evidence_keys()).made

        assert (second.number, second.previous, second.rows) == (2, first.digest, 1)

    def test_seal_creates_no_checkpoint_if_all_rows_can_still_change(self, initial_keys, rows):
        assert seal(evidence_keys()) == checkpoints.Sealed((), 0, None)
        rows(60)
        assert seal(evidence_keys()).made == ()
        assert not Checkpoint.objects.exists()

    def test_seal_covers_a_row_that_was_inserted_after_the_row_of_a_newer_token(self, rows):
        # The third row is inserted last, but its token is older than the token of the second row.
        rows(9000, 60, 8000)

        assert [made.rows for made in seal(evidence_keys()).made] == [2]

    def test_seal_covers_a_row_whose_insert_took_almost_ten_minutes(self, rows, time_machine):
        rows(9000, SETTLED - 2)
        seal(evidence_keys())
        late = rows(SETTLED - 1)[0]
        time_machine.shift(3)

        (made,) = seal(evidence_keys()).made

        assert (made.first, made.rows) == (late.pk, 2)
        assert verification.verify(evidence_keys()).problems == []

    def test_seal_ends_a_checkpoint_at_midnight_so_that_old_days_can_be_pruned(self, rows):
        midnight = 15 * 3600
        rows(midnight + 50, midnight + 20, midnight - 1, midnight + 1, midnight - 30, midnight)
        seal(evidence_keys())

        assert covered_rows() == [(1, 3), (2, 3)]

    def test_seal_starts_a_new_checkpoint_after_the_time_given_as_cut(self, rows):
        rows(9000, 8000, 7000)
        seal(evidence_keys(), cut=NOW - timedelta(seconds=7500))

        assert covered_rows() == [(1, 2), (2, 1)]

    def test_seal_limits_the_number_of_rows_per_checkpoint(self, rows, monkeypatch):
        monkeypatch.setattr(checkpoints, "ROWS", 4)
        rows(*range(9100, 9000, -10))
        seal(evidence_keys())

        assert covered_rows() == [(1, 4), (2, 4), (3, 2)]

    def test_seal_covers_the_rows_of_a_day_with_one_checkpoint_even_if_two_queries_read_the_rows(
        self, rows, monkeypatch
    ):
        monkeypatch.setattr(checkpoints, "ROWS", 4)
        rows(*(day * DAY + second for day in (5, 4, 3) for second in (3, 2, 1)))
        seal(evidence_keys())

        assert covered_rows() == [(1, 3), (2, 3), (3, 3)]

    @pytest.mark.parametrize("ages", [[9000], []], ids=["with a row", "without rows"])
    def test_seal_raises_key_unavailable_if_there_is_no_signing_key(self, row, ages):
        for age in ages:
            row(age=age)

        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            seal(evidence_keys())

    def test_seal_marks_rows_whose_hmac_does_not_match(self, rows):
        modified = rows(9000, 8000)[1]
        IssuedToken.objects.filter(pk=modified.pk).update(user_agent="modified")

        (made,) = seal(evidence_keys()).made

        assert made.altered == 1
        assert [entry.row for entry in checkpoint_index.parse(Checkpoint.objects.get().index) if entry.altered] == [
            modified.pk
        ]

    def test_seal_covers_no_row_that_can_be_revoked_later(self, rows, time_machine):
        each = rows(0)[0]
        chosen = audit_rows.revocable_tokens()
        list(chosen)
        time_machine.shift(SETTLED + 1)
        seal(evidence_keys())

        # Simulate a caller that selected the row before the checkpoint was created. The revocation must not change
        # the row, because `verify` would report the change.
        assert (
            revocation.revoke(IssuedToken.objects.filter(pk=each.pk), keks=keks_for_revocation(), reason="late") == 0
        )
        assert verification.verify(evidence_keys()).problems == []

    @pytest.mark.django_db(transaction=True)
    def test_seal_in_several_threads_creates_one_chain_of_checkpoints(self, row, initial_keys):
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
        assert sum(rows for _, rows in covered_rows()) == 6
        assert verification.verify(evidence_keys()).problems == []


class TestACheckpoint:
    def test_checkpoint_is_a_jws_that_other_software_can_verify(self, rows):
        made = rows(9000, 8000)
        seal(evidence_keys())

        checkpoint = Checkpoint.objects.get()
        signing = Key.objects.get(use="sig", status="current")
        key = RSAKey.import_key({"kty": "RSA", "n": signing.public_jwk["n"], "e": signing.public_jwk["e"]})
        verified = joserfc_jws.deserialize_compact(checkpoint.jws, key)
        payload = json.loads(verified.payload)
        assert verified.headers() == {"typ": "instaccess-checkpoint", "alg": "RS256", "kid": signing.kid}
        assert (payload["rows"], payload["last"], payload["previous"]) == (2, made[-1].pk, "")
        digests = [base64url_encode(hashlib.sha256(row_hmac.canonical_bytes(each)).digest()) for each in made]
        index = "\n".join(f"{each.pk} {digest}" for each, digest in zip(made, digests, strict=True))
        assert checkpoint.index == index
        assert payload["digest"] == hashlib.sha256(f"\n{index}".encode()).hexdigest()

    def test_checkpoint_is_refused_as_a_token_and_a_token_is_refused_as_a_checkpoint(self, rows, user, application):
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
            signatures.read_signed(token, "", evidence_keys(), name="it")

    def test_checkpoint_is_valid_after_its_signing_key_was_rotated_and_revoked(self, rows):
        rows(9000)
        seal(evidence_keys())
        lifecycle.rotate(Key.Use.SIGNING, force=True)
        lifecycle.revoke(Key.objects.get(use="sig", status="past").kid, reason="lost")

        assert verification.verify(evidence_keys()).problems == []

    def test_checkpoint_is_invalid_if_signed_with_a_key_that_an_attacker_inserted(self, rows, rsa_pool):
        rows(9000)
        seal(evidence_keys())
        # Simulate an attacker who inserts a signing key and signs a modified checkpoint with this signing key.
        attacker_key = rsa_pool.take("sig")
        kid = attacker_key.thumbprint()
        public = {**attacker_key.export_public(as_dict=True), "kid": kid, "use": "sig"}
        Key.objects.create(kid=kid, use="sig", status="past", public_jwk=public)
        checkpoint = Checkpoint.objects.get()
        payload = json.dumps(compact.json_object(compact.split_compact(checkpoint.jws, 3)[1], "it")).encode()
        checkpoint.jws = jose.sign(payload, PrivateKey(attacker_key), kid=kid, typ=signatures.CHECKPOINT)
        checkpoint.save()

        assert verification.verify(evidence_keys()).summary == "checkpoint 1 was modified: its HMAC doesn't match"


def test_a_token_that_was_issued_4620_seconds_ago_cannot_be_revoked(row: Any, initial_keys: Any) -> None:
    each = row(age=SETTLED)

    assert each not in audit_rows.revocable_tokens()
    # Simulate a server whose clock is ten minutes slow. A revocation on this server must not change the row, because
    # a checkpoint may already cover the row.
    assert each not in audit_rows.revocable_tokens(now=timezone.now() - timedelta(minutes=10))
