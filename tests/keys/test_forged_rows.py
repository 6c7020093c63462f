"""Tests for keys whose rows were inserted or modified with SQL.

Every operation skips or refuses such a key, except the revocation of this key.
"""

from __future__ import annotations

from typing import Any

import pytest

from instaccess import audit
from instaccess.audit.evidence import signatures, verification
from instaccess.exceptions import AuditAltered, KeyAltered, KeyRefused, KeyUnavailable
from instaccess.keys import evidence_keys, lifecycle, provision, queries, store
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken, Key
from instaccess.tokens import PrivateKey, jose
from instaccess.trust import material
from tests.keys.helpers import BOTH_USES, DAY, ENC, SIG, START, accepted, key_of, kids
from tests.support import key_texts
from tests.support.stored_keys import insert_with_sql

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("started")]


@pytest.fixture
def rogue(started: None, rsa_pool: Any) -> tuple[Key, Any]:
    """Insert a future signing key with SQL, and return the row and the attacker's private key."""
    private = rsa_pool.take(SIG)
    return insert_with_sql(private, use=SIG), private


def modify(key: Key, **columns: Any) -> Key:
    """Change columns with SQL, as an attacker does."""
    Key.objects.filter(pk=key.pk).update(**columns)
    return Key.objects.get(pk=key.pk)


def problems() -> list[str]:
    return [error.detail for error in queries.examine()[1].values()]


class TestAnInsertedKey:
    @pytest.mark.parametrize("status", ["current", "future", "past"])
    def test_k17_key_ring_omits_and_logs_an_inserted_signing_key(self, status, rsa_pool, caplog):
        if status == "current":
            Key.objects.filter(use=SIG, status="current").delete()
        private = rsa_pool.take(SIG)
        row = insert_with_sql(private, use=SIG, status=status, activated_at=START)
        ring = keys_ring.load()

        assert row.kid not in ring.verification_keys()
        assert row.kid not in {key["kid"] for key in ring.published()}
        assert f"the row of key {row.kid} was modified or inserted without this app" in caplog.text
        assert f"`python manage.py instaccess_keys revoke --kid {row.kid}`" in caplog.text

    def test_k17_key_ring_refuses_to_sign_with_an_inserted_key(self, rsa_pool):
        Key.objects.filter(use=SIG, status="current").delete()
        insert_with_sql(rsa_pool.take(SIG), use=SIG, status="current", activated_at=START)

        with pytest.raises(KeyAltered):
            keys_ring.load().signing_key()

    def test_k17_key_ring_refuses_to_encrypt_for_an_inserted_key(self, rsa_pool):
        """The app must refuse the key, because an attacker could decrypt tokens that are encrypted for the key."""
        Key.objects.filter(use=ENC, status="current").delete()
        insert_with_sql(rsa_pool.take(ENC), use=ENC, status="current", activated_at=START)

        with pytest.raises(KeyAltered):
            keys_ring.load().encryption_key()

    @BOTH_USES
    @pytest.mark.parametrize("force", [False, True])
    def test_k17_a_rotation_skips_an_inserted_key(self, use, force, clock, rsa_pool):
        row = insert_with_sql(rsa_pool.take(use), use=use, sealed_private_jwk="junk", created_at=START - DAY)
        [successor] = [key for key in Key.objects.filter(use=use, status="future") if key != row]
        clock.shift(30 * DAY)

        assert lifecycle.rotate(use, force=force).activated == successor
        assert Key.objects.get(pk=row.pk).status == "future"
        assert len(problems()) == 1

    def test_k17_a_revocation_skips_an_inserted_key(self, rogue):
        row, _ = rogue
        done = lifecycle.revoke(key_of(SIG, "current").kid)

        assert done.successor not in (None, row)

    def test_k17_an_inserted_key_cannot_be_activated_or_exported(self, rogue):
        row, _ = rogue

        with pytest.raises(KeyAltered):
            lifecycle.activate(row.kid, force=True)
        with pytest.raises(KeyAltered):
            provision.export(row, file_format="pem")

    def test_k17_an_inserted_key_cannot_verify_a_checkpoint(self, rogue):
        row, private = rogue
        forged = jose.sign(b"{}", PrivateKey(private), kid=row.kid, typ=signatures.CHECKPOINT)

        for _ in ("before", "after the revocation"):
            assert row.kid not in evidence_keys().verification
            with pytest.raises(AuditAltered, match="signature is invalid"):
                signatures.read_signed(forged, "", evidence_keys(), name="it")
            lifecycle.revoke(row.kid)

    def test_k17_revocation_of_an_inserted_key_fixes_the_reported_problem_and_keeps_the_other_keys(self, rogue):
        row, _ = rogue
        current = kids(SIG, "current")
        done = lifecycle.revoke(row.kid)

        assert (done.successor, done.key.status, done.key.public_jwk) == (None, "revoked", {})
        assert kids(SIG, "current") == current
        assert problems() == []
        provision.check_sealed_keys()

    def test_k17_a_key_can_be_revoked_if_an_inserted_kid_begins_with_the_kid_of_the_key(self, rsa_pool):
        kid = key_of(SIG, "current").kid
        insert_with_sql(rsa_pool.take(SIG), use=SIG, kid=f"{kid}x")

        assert lifecycle.revoke(kid).key.kid == kid

    def test_k17_revoke_names_the_row_to_delete_if_an_inserted_key_has_an_unknown_use(self, rsa_pool):
        row = insert_with_sql(rsa_pool.take(SIG), use="odd")

        with pytest.raises(KeyAltered, match=f"delete the row with id {row.pk}"):
            lifecycle.revoke(row.kid)

    def test_k17_init_generates_no_key_until_the_inserted_key_is_revoked(self, rogue):
        row, _ = rogue
        Key.objects.filter(use=SIG, status="current").delete()

        with pytest.raises(KeyAltered, match=row.kid):
            provision.init()
        assert not kids(SIG, "current")
        lifecycle.revoke(row.kid)
        assert [(key.use, key.status) for key in provision.init()] == [(SIG, "current")]


class TestAModifiedCurrentKey:
    @BOTH_USES
    def test_k17_key_ring_refuses_a_modified_current_key_and_the_error_names_the_command_revoke(self, use):
        key = modify(key_of(use, "current"), alg="odd")
        ring = keys_ring.load()
        read = ring.signing_key if use == SIG else ring.encryption_key

        for _ in range(2):
            with pytest.raises(KeyAltered, match=f"revoke --kid {key.kid}`"):
                read()

    @BOTH_USES
    def test_k17_a_rotation_changes_no_key_if_the_current_key_is_modified(self, use, clock):
        key = modify(key_of(use, "current"), alg="odd")
        clock.shift(30 * DAY)
        before = list(Key.objects.order_by("pk").values())

        with pytest.raises(KeyAltered, match=key.kid):
            lifecycle.rotate(use, force=True)
        with pytest.raises(KeyAltered, match=key.kid):
            lifecycle.activate(key_of(use, "future").kid, force=True)
        assert list(Key.objects.order_by("pk").values()) == before

    @BOTH_USES
    def test_k17_revocation_of_a_modified_key_makes_the_next_key_current_and_fixes_the_reported_problem(
        self, use, issue
    ):
        key, successor = modify(key_of(use, "current"), alg="odd"), key_of(use, "future")
        done = lifecycle.revoke(key.kid)

        assert done.successor == successor
        assert problems() == []
        assert accepted(issue()[1])

    def test_k17_checkpoints_stay_valid_after_the_revocation_of_a_modified_signing_key(self, clock, issue):
        """Revocation must restore the modified public key from the sealed private key.

        Otherwise, `verify` couldn't check the checkpoints that were signed with this key.
        """
        issue()
        clock.shift(3 * 3600)
        audit.seal(evidence_keys())
        lifecycle.revoke(modify(key_of(SIG, "current"), public_jwk={}).kid)

        assert verification.verify(evidence_keys()).problems == []

    def test_k17_tokens_of_a_modified_key_are_refused_until_its_row_is_restored(self, issue):
        _, token = issue()
        key = key_of(SIG, "current")
        modify(key, activated_at=START - DAY)
        assert not accepted(token)

        modify(key, activated_at=START)
        assert accepted(token)

    def test_k17_key_that_an_attacker_marked_as_revoked_is_reported_and_its_tokens_are_not_revoked(self, issue):
        issue()
        key = modify(key_of(SIG, "current"), status="revoked", revoked_at=START)
        with pytest.raises(KeyUnavailable):
            lifecycle.rotate(SIG)

        assert IssuedToken.objects.filter(revoked_at=None).count() == 1
        assert key.kid in problems()[0]


class TestARevokedKeyThatAnAttackerMadeValidAgain:
    @pytest.mark.parametrize("columns", [{"status": "past"}, {"status": "future", "revoked_at": None}])
    def test_k17_a_revoked_key_that_an_attacker_made_valid_again_stays_refused(self, columns, issue):
        _, token = issue()
        key = lifecycle.revoke(key_of(SIG, "current").kid).key
        modify(key, **columns)

        assert key.kid not in keys_ring.load().verification_keys()
        assert not accepted(token)

    def test_k17_a_revoked_key_that_an_attacker_made_valid_again_can_be_revoked_again(self):
        key = lifecycle.revoke(key_of(SIG, "current").kid).key
        modify(key, status="past")
        lifecycle.revoke(key.kid)

        assert Key.objects.get(pk=key.pk).status == "revoked"
        assert problems() == []


class TestARoutineChangeOfAModifiedRow:
    @pytest.mark.parametrize("status", ["current", "future"])
    def test_k17_the_current_key_is_not_replaced_if_a_key_row_is_modified_and_no_row_gets_a_new_hmac(self, status):
        modify(key_of(SIG, status), alg="odd")
        before = list(Key.objects.order_by("pk").values())

        with pytest.raises(KeyAltered):
            store.succeed(key_of(SIG, "current"), key_of(SIG, "future"), START)
        assert list(Key.objects.order_by("pk").values()) == before

    def test_k17_the_private_key_of_a_modified_row_is_not_erased_and_the_row_gets_no_new_hmac(self):
        key = modify(key_of(ENC, "current"), alg="odd")
        before = list(Key.objects.order_by("pk").values())

        with pytest.raises(KeyAltered):
            store.erase(key)
        assert list(Key.objects.order_by("pk").values()) == before

    def test_k17_a_rotation_does_not_erase_a_modified_past_key(self, clock):
        past = lifecycle.rotate(SIG, force=True).retired
        modify(past, alg="odd")
        clock.shift(DAY)

        assert lifecycle.rotate(SIG).erased == ()
        assert len(problems()) == 1

    def test_k17_a_key_row_that_is_modified_during_a_rotation_gets_no_new_hmac(self, monkeypatch):
        decide = lifecycle.rotation.decide

        def modify_after(*args: Any, **kwargs: Any) -> Any:
            decision = decide(*args, **kwargs)
            if decision.activate:
                decision.activate.alg = "odd"
            return decision

        monkeypatch.setattr(lifecycle.rotation, "decide", modify_after)
        before = list(Key.objects.order_by("pk").values())

        with pytest.raises(KeyAltered):
            lifecycle.rotate(SIG, force=True)
        assert list(Key.objects.order_by("pk").values()) == before

    def test_k17_an_inserted_key_cannot_be_replaced_by_an_import(self, rogue):
        """The app must refuse the import, because the import would hide that the row was inserted."""
        _, private = rogue

        with pytest.raises(KeyRefused, match="already stored"):
            key_texts.import_key(material.to_text(private, file_format="pem"), use=SIG)


class TestTheQueriesOfTheKeyRing:
    def test_loading_the_key_ring_takes_one_query(self, django_assert_num_queries):
        with django_assert_num_queries(1):
            keys_ring.load()


class TestRevokeWithInvalidSettings:
    def test_key_revoked_while_the_settings_are_invalid_is_reported_until_the_key_is_revoked_again(self, settings):
        key = key_of(SIG, "current")
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["too short"]}
        lifecycle.revoke(key.kid)
        settings.INSTACCESS = {}

        assert key.kid not in keys_ring.load().verification_keys()
        assert len(problems()) == 1
        lifecycle.revoke(key.kid)
        assert problems() == []

    def test_a_second_revocation_while_the_settings_are_invalid_keeps_the_hmac_of_an_authentic_row(self, settings):
        key = lifecycle.revoke(key_of(SIG, "current").kid).key
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["too short"]}
        lifecycle.revoke(key.kid)
        settings.INSTACCESS = {}

        assert problems() == []
        assert key.kid in evidence_keys().verification
