"""Keys made, imported, exported and sealed anew."""

from __future__ import annotations

import base64
import secrets
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from instaccess import trust
from instaccess.conf import DERIVED, conf
from instaccess.exceptions import KeyRefused, KeyUnavailable, UnsealError
from instaccess.issuer import issuing
from instaccess.keys import lifecycle, provision, sealing, store
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.tokens import jose
from instaccess.trust import material

pytestmark = pytest.mark.django_db

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")
BOTH_USES = pytest.mark.parametrize("use", [SIG, ENC])
BOTH_FORMATS = pytest.mark.parametrize("file_format", ["pem", "jwk"])


def kek(number: int) -> str:
    return base64.urlsafe_b64encode(bytes([number]) * 32).rstrip(b"=").decode()


def sealed_with(*entries: str) -> Any:
    return override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": list(entries)})


def slots() -> list[tuple[str, str]]:
    return sorted(Key.objects.values_list("use", "status"))


def rows() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


def opened() -> int:
    """Open every sealed key with the key-encryption keys of now; returns how many there are."""
    provision.check_sealed_keys()
    return Key.objects.exclude(sealed_private_jwk="").count()


def sealed_under() -> set[str]:
    return {sealing.sealed_under(text) for text in Key.objects.values_list("sealed_private_jwk", flat=True) if text}


@pytest.fixture
def pair(rsa_pool: Any) -> Any:
    return rsa_pool.take()


def private_pem(key: Any) -> str:
    return material.to_text(key, file_format="pem", private=True)


def public_pem(key: Any) -> str:
    return material.to_text(key, file_format="pem", private=False)


class TestInit:
    def test_makes_a_current_and_a_future_signing_key_and_a_current_encryption_key(self):
        made = provision.init(now=NOW)

        assert slots() == [("enc", "current"), ("sig", "current"), ("sig", "future")]
        assert {key.kid for key in made} == set(Key.objects.values_list("kid", flat=True))
        assert {key.created_at for key in made} == {NOW}
        assert all(key.has_private for key in made)

    def test_k5_a_second_time_changes_nothing(self):
        provision.init()
        before = rows()

        assert provision.init() == []
        assert rows() == before

    def test_k5_twenty_times_over_there_is_one_set(self):
        assert [len(provision.init()) for _ in range(20)] == [3] + [0] * 19
        assert len(rows()) == 3

    def test_k5_who_finds_the_set_made_while_making_its_own_throws_that_away(self, monkeypatch, rsa_pool):
        begun: list[str] = []

        def generate(use: str) -> Any:
            if not begun:
                begun.append(use)
                assert len(provision.init()) == 3
            return rsa_pool.take(use)

        monkeypatch.setattr(trust, "generate_jwk", generate)

        assert provision.init() == []
        assert len(rows()) == 3

    @pytest.mark.parametrize("slot", provision.INITIAL, ids=lambda slot: "-".join(map(str, slot)))
    def test_makes_only_what_is_missing(self, slot, initial_keys):
        use, status = slot
        Key.objects.get(use=use, status=status).delete()
        kept = rows()
        made = provision.init()

        assert [(key.use, key.status) for key in made] == [slot]
        assert [row for row in rows() if row["kid"] != made[0].kid] == kept

    def test_keeps_the_gateways_public_encryption_key(self, pair):
        public = lifecycle.activate(provision.import_key(public_pem(pair), use=ENC).kid)
        provision.init()

        assert Key.objects.get(use=ENC) == public

    def test_o6_under_a_wrong_key_encryption_key_it_makes_none(self):
        with sealed_with(kek(1)):
            provision.init()
        Key.objects.get(status="future").delete()
        before = rows()

        with sealed_with(kek(2)), pytest.raises(UnsealError, match="KEY_ENCRYPTION_KEYS") as caught:
            provision.init()
        assert caught.value.code == "kek_missing"
        assert rows() == before
        with sealed_with(kek(1)):
            assert len(provision.init()) == 1


class TestGenerate:
    @BOTH_USES
    def test_makes_a_future_key_with_both_halves(self, use):
        key = provision.generate(use, now=NOW)

        assert (key.use, key.status, key.has_private, key.created_at) == (use, "future", True, NOW)
        assert (key.activated_at, key.retired_at, key.revoked_at) == (None, None, None)

    def test_may_be_one_of_several(self):
        provision.generate(SIG)
        provision.generate(SIG)

        assert slots() == [("sig", "future")] * 2


class TestAStoredKey:
    @BOTH_USES
    def test_is_named_by_its_thumbprint_and_shows_no_private_member(self, use):
        row = provision.generate(use)
        private = sealing.unseal(row.sealed_private_jwk, kid=row.kid, use=use, keks=conf.key_encryption_keys)

        assert row.kid == row.public_jwk["kid"] == private.thumbprint()
        assert set(row.public_jwk) == {"kty", "n", "e", "use", "kid"}
        for name in PRIVATE_MEMBERS:
            assert private[name] not in str(Key.objects.filter(pk=row.pk).values())


class TestImport:
    @BOTH_USES
    @BOTH_FORMATS
    def test_of_a_public_key_keeps_one_half_as_a_future_key(self, use, file_format, pair):
        text = material.to_text(pair, file_format=file_format, private=False)
        row = provision.import_key(text, use=use, now=NOW)

        assert (row.kid, row.use, row.status, row.created_at) == (pair.thumbprint(), use, "future", NOW)
        assert row.sealed_private_jwk == ""

    @BOTH_USES
    @BOTH_FORMATS
    def test_of_a_private_key_keeps_both_where_that_is_asked_for(self, use, file_format, pair):
        text = material.to_text(pair, file_format=file_format, private=True)
        row = provision.import_key(text.encode(), use=use, with_private=True)

        assert row.has_private
        assert provision.export(row, file_format="pem", private=True) == private_pem(pair)

    @pytest.mark.parametrize(("use", "power"), [(SIG, "forge"), (ENC, "decrypt")])
    def test_k6_of_a_private_key_where_a_public_one_is_expected_is_refused_and_says_why(self, use, power, pair):
        with pytest.raises(KeyRefused, match=f"an attacker with the private key can {power} every token") as caught:
            provision.import_key(private_pem(pair), use=use)
        assert "--with-private" in caught.value.detail
        assert not Key.objects.exists()

    def test_of_a_public_key_does_not_mind_that_a_private_one_would_do(self, pair):
        assert not provision.import_key(public_pem(pair), use=ENC, with_private=True).has_private

    @BOTH_USES
    def test_k11_of_a_key_that_is_held_is_refused(self, use, pair):
        provision.import_key(public_pem(pair), use=use)
        before = rows()

        with pytest.raises(KeyRefused, match=f"already stored for use '{use}'"):
            provision.import_key(public_pem(pair), use=use)
        assert rows() == before

    def test_k6_of_the_same_key_for_signing_and_encryption_is_refused(self, pair):
        provision.import_key(private_pem(pair), use=SIG, with_private=True)

        with pytest.raises(KeyRefused, match="a key must have only one use"):
            provision.import_key(public_pem(pair), use=ENC)
        assert slots() == [("sig", "future")]

    def test_k11_of_a_revoked_key_does_not_bring_it_back(self, pair):
        kid = provision.import_key(private_pem(pair), use=SIG, with_private=True).kid
        lifecycle.revoke(kid)

        with pytest.raises(KeyRefused, match="already stored"):
            provision.import_key(private_pem(pair), use=SIG, with_private=True)

    def test_k11_the_database_refuses_a_second_row_of_one_kid(self, pair):
        provision.import_key(public_pem(pair), use=SIG)

        with pytest.raises(Exception, match=r"(?i)unique|duplicate"), store.locked():
            store.store(pair, use=ENC, status=Key.Status.FUTURE, now=NOW)
        assert slots() == [("sig", "future")]

    def test_k6_of_a_weak_key_leaves_no_row(self):
        with pytest.raises(KeyRefused, match="generate"):
            provision.import_key('{"generate": "RSA", "size": 2048}', use=SIG, with_private=True)
        assert not Key.objects.exists()


class TestExport:
    @BOTH_USES
    @BOTH_FORMATS
    def test_of_the_public_half_round_trips(self, use, file_format, rsa_pool):
        row = provision.generate(use)
        text = provision.export(row, file_format=file_format)
        row.delete()

        assert "PRIVATE" not in text
        again = provision.import_key(text, use=use)
        assert (again.kid, again.public_jwk, again.has_private) == (row.kid, row.public_jwk, False)

    @BOTH_USES
    @BOTH_FORMATS
    def test_of_both_halves_round_trips_and_the_key_works(self, use, file_format, user, initial_keys):
        lifecycle.activate(provision.generate(use).kid, force=True)
        row, token = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())
        key = Key.objects.get(use=use, status="current")
        text = provision.export(key, file_format=file_format, private=True)
        Key.objects.filter(pk=key.pk).delete()
        provision.import_key(text, use=use, with_private=True)

        ring = keys_ring.load()
        signed, _ = jose.decrypt(token, ring.decryption_keys())
        assert jose.verify(signed, ring.verification_keys())[0]["jti"] == str(row.jti)

    def test_of_the_private_half_is_written_into_the_log(self, caplog):
        row = provision.generate(SIG)
        provision.export(row, file_format="pem", private=True)

        assert f"private key of key {row.kid} exported" in caplog.text

    def test_of_a_private_half_that_is_not_held_is_refused(self, pair):
        row = provision.import_key(public_pem(pair), use=ENC)

        with pytest.raises(KeyUnavailable, match="only the public key"):
            provision.export(row, file_format="pem", private=True)

    @BOTH_FORMATS
    def test_of_a_public_half_that_was_altered_is_refused(self, file_format, rsa_pool):
        """Handed to a gateway, it would have tokens encrypted for somebody else."""
        row = provision.generate(ENC)
        row.public_jwk = {**row.public_jwk, "n": rsa_pool.take()["n"]}

        with pytest.raises(KeyUnavailable, match="was modified"):
            provision.export(row, file_format=file_format)

    @pytest.mark.parametrize("value", [{}, {"kty": "RSA"}, {"kty": "RSA", "n": 5, "e": "AQAB"}, [], None, "text"])
    def test_of_a_public_half_that_is_none_is_refused(self, value):
        row = provision.generate(ENC)
        row.public_jwk = value

        with pytest.raises(KeyUnavailable, match="was modified"):
            provision.export(row, file_format="pem")


class TestFindingAKey:
    def test_takes_the_whole_kid_or_six_characters_of_its_beginning(self, initial_keys):
        for key in initial_keys:
            assert store.find_key(key.kid) == key
            assert store.find_key(key.kid[:6]) == key

    @pytest.mark.parametrize("length", [0, 1, 5])
    def test_refuses_fewer(self, length, initial_keys):
        with pytest.raises(KeyUnavailable, match="there is no key"):
            store.find_key(initial_keys[0].kid[:length])

    def test_tells_upper_from_lower_case_whatever_the_database_does(self, initial_keys):
        kid = initial_keys[0].kid

        with pytest.raises(KeyUnavailable, match="there is no key"):
            store.find_key(kid.swapcase())

    def test_refuses_a_beginning_that_two_share(self, initial_keys):
        for number, key in enumerate(initial_keys[:2]):
            Key.objects.filter(pk=key.pk).update(kid=f"shared-beginning-{number}")

        with pytest.raises(KeyUnavailable, match="there is more than one key 'shared'"):
            store.find_key("shared")


class TestReseal:
    @pytest.fixture(autouse=True)
    def sealed_under_the_first(self, db):
        with sealed_with(kek(1)):
            provision.init()

    def test_seals_every_key_under_the_first_key_encryption_key_and_says_how_many(self):
        with sealed_with(kek(2), kek(1)):
            assert provision.reseal() == 3
        assert sealed_under() == {sealing.kek_id(bytes([2]) * 32)}

    def test_a_second_time_does_nothing(self):
        with sealed_with(kek(2), kek(1)):
            provision.reseal()
            before = rows()

            assert provision.reseal() == 0
        assert rows() == before

    def test_changes_nothing_else_about_a_key(self):
        before = [{**row, "sealed_private_jwk": ""} for row in rows()]
        with sealed_with(kek(2), kek(1)):
            provision.reseal()

        assert [{**row, "sealed_private_jwk": ""} for row in rows()] == before

    def test_o7_every_row_opens_before_after_and_once_the_old_one_is_dropped(self):
        with sealed_with(kek(2), kek(1)):
            assert opened() == 3
            provision.reseal()
            assert opened() == 3
        with sealed_with(kek(2)):
            assert opened() == 3
        with sealed_with(kek(1)), pytest.raises(UnsealError):
            provision.check_sealed_keys()

    def test_o7_a_token_is_issued_and_opened_at_every_step(self, user):
        def works() -> None:
            keys_ring.clear_cache()
            _, token = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())
            ring = keys_ring.load()
            jose.verify(jose.decrypt(token, ring.decryption_keys())[0], ring.verification_keys())

        for step in ([kek(1)], [kek(1), kek(2)], [kek(2), kek(1)]):
            with sealed_with(*step):
                works()
        with sealed_with(kek(2), kek(1)):
            provision.reseal()
            works()
        with sealed_with(kek(2)):
            works()

    def test_o5_interrupted_after_the_first_row_it_can_be_run_again(self):
        writes: list[str] = []

        def die_at_the_second_write(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("UPDATE"):
                writes.append(sql)
                if len(writes) == 2:
                    raise KeyboardInterrupt
            return execute(sql, params, many, context)

        with sealed_with(kek(2), kek(1)):
            with connection.execute_wrapper(die_at_the_second_write), pytest.raises(KeyboardInterrupt):
                provision.reseal()
            assert len(sealed_under()) == 2
            assert opened() == 3
            assert provision.reseal() == 2
        with sealed_with(kek(2)):
            assert opened() == 3

    def test_a_key_that_was_changed_meanwhile_is_left_as_it_is_now(self, monkeypatch):
        """Its private half was erased between our reading and our writing: it must not come back."""
        seal = sealing.seal

        def erase_meanwhile(*args: Any, **kwargs: Any) -> str:
            Key.objects.filter(kid=kwargs["kid"]).update(sealed_private_jwk="")
            return seal(*args, **kwargs)

        monkeypatch.setattr(sealing, "seal", erase_meanwhile)
        with sealed_with(kek(2), kek(1)):
            assert provision.reseal() == 0
        assert sealed_under() == set()

    def test_k7_one_that_does_not_open_is_named_and_the_others_are_resealed(self):
        broken = Key.objects.get(use=ENC)
        Key.objects.filter(pk=broken.pk).update(sealed_private_jwk=broken.sealed_private_jwk[:-4] + "AAAA")
        with sealed_with(kek(2), kek(1)), pytest.raises(UnsealError, match=broken.kid):
            provision.reseal()

        for row in Key.objects.filter(use=SIG):
            assert sealing.sealed_under(row.sealed_private_jwk) == sealing.kek_id(bytes([2]) * 32)

    def test_o6_without_the_old_key_encryption_key_nothing_is_changed(self):
        before = rows()
        with sealed_with(kek(2)), pytest.raises(UnsealError):
            provision.reseal()

        assert rows() == before


class TestMovingAwayFromSecretKey:
    def test_goes_through_the_entry_that_stands_for_it(self):
        with override_settings(INSTACCESS={}):
            provision.init()
        own = secrets.token_urlsafe(32)
        with sealed_with(own, DERIVED):
            assert opened() == 3
            assert provision.reseal() == 3
        with sealed_with(own), override_settings(SECRET_KEY="changed at last"):
            assert opened() == 3

    def test_o6_straight_to_a_key_of_ones_own_is_an_error_that_names_the_setting(self):
        with override_settings(INSTACCESS={}):
            provision.init()

        with sealed_with(kek(1)), pytest.raises(UnsealError, match="SECRET_KEY_FALLBACKS"):
            provision.check_sealed_keys()

    def test_is_not_needed_to_change_secret_key_with_a_fallback(self):
        with override_settings(INSTACCESS={}, SECRET_KEY="old"):
            provision.init()
        with override_settings(INSTACCESS={}, SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
            assert opened() == 3
            assert provision.reseal() == 3
        with override_settings(INSTACCESS={}, SECRET_KEY="new"):
            assert opened() == 3
