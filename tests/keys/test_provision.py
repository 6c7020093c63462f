"""Tests of generating, importing, exporting, finding and resealing keys."""

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


def unseal_all() -> int:
    """Unseal every key with the configured key-encryption keys. Returns the number of keys."""
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
    def test_init_generates_two_signing_keys_and_a_current_encryption_key(self):
        generated = provision.init(now=NOW)

        assert slots() == [("enc", "current"), ("sig", "current"), ("sig", "future")]
        assert {key.kid for key in generated} == set(Key.objects.values_list("kid", flat=True))
        assert {key.created_at for key in generated} == {NOW}
        assert all(key.has_private for key in generated)

    def test_k5_a_second_init_changes_nothing(self):
        provision.init()
        before = rows()

        assert provision.init() == []
        assert rows() == before

    def test_k5_twenty_inits_in_a_row_generate_one_set_of_keys(self):
        assert [len(provision.init()) for _ in range(20)] == [3] + [0] * 19
        assert len(rows()) == 3

    def test_k5_init_discards_its_keys_if_another_init_was_faster(self, monkeypatch, rsa_pool):
        calls: list[str] = []

        def generate(use: str) -> Any:
            if not calls:
                calls.append(use)
                assert len(provision.init()) == 3
            return rsa_pool.take(use)

        monkeypatch.setattr(trust, "generate_jwk", generate)

        assert provision.init() == []
        assert len(rows()) == 3

    @pytest.mark.parametrize("slot", provision.INITIAL, ids=lambda slot: "-".join(map(str, slot)))
    def test_init_generates_only_the_missing_key(self, slot, initial_keys):
        use, status = slot
        Key.objects.get(use=use, status=status).delete()
        kept = rows()
        generated = provision.init()

        assert [(key.use, key.status) for key in generated] == [slot]
        assert [row for row in rows() if row["kid"] != generated[0].kid] == kept

    def test_init_keeps_the_public_encryption_key_of_a_gateway(self, pair):
        public = lifecycle.activate(provision.import_key(public_pem(pair), use=ENC).kid)
        provision.init()

        assert Key.objects.get(use=ENC) == public

    def test_o6_init_generates_no_key_if_the_key_encryption_key_is_wrong(self):
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
    def test_generate_stores_a_future_key_with_its_private_key(self, use):
        key = provision.generate(use, now=NOW)

        assert (key.use, key.status, key.has_private, key.created_at) == (use, "future", True, NOW)
        assert (key.activated_at, key.retired_at, key.revoked_at) == (None, None, None)

    def test_generate_can_store_several_future_keys(self):
        provision.generate(SIG)
        provision.generate(SIG)

        assert slots() == [("sig", "future")] * 2


class TestAStoredKey:
    @BOTH_USES
    def test_the_kid_is_the_thumbprint_and_no_private_member_is_stored_in_the_clear(self, use):
        row = provision.generate(use)
        private = sealing.unseal(row.sealed_private_jwk, kid=row.kid, use=use, keks=conf.key_encryption_keys)

        assert row.kid == row.public_jwk["kid"] == private.thumbprint()
        assert set(row.public_jwk) == {"kty", "n", "e", "use", "kid"}
        for name in PRIVATE_MEMBERS:
            assert private[name] not in str(Key.objects.filter(pk=row.pk).values())


class TestImport:
    @BOTH_USES
    @BOTH_FORMATS
    def test_a_public_key_is_imported_as_a_future_key(self, use, file_format, pair):
        text = material.to_text(pair, file_format=file_format, private=False)
        row = provision.import_key(text, use=use, now=NOW)

        assert (row.kid, row.use, row.status, row.created_at) == (pair.thumbprint(), use, "future", NOW)
        assert row.sealed_private_jwk == ""

    @BOTH_USES
    @BOTH_FORMATS
    def test_a_private_key_is_imported_if_with_private_is_given(self, use, file_format, pair):
        text = material.to_text(pair, file_format=file_format, private=True)
        row = provision.import_key(text.encode(), use=use, with_private=True)

        assert row.has_private
        assert provision.export(row, file_format="pem", private=True) == private_pem(pair)

    @pytest.mark.parametrize(("use", "power"), [(SIG, "forge"), (ENC, "decrypt")])
    def test_k6_a_private_key_is_refused_with_a_reason_if_with_private_is_not_given(self, use, power, pair):
        with pytest.raises(KeyRefused, match=f"an attacker with the private key can {power} every token") as caught:
            provision.import_key(private_pem(pair), use=use)
        assert "--with-private" in caught.value.detail
        assert not Key.objects.exists()

    def test_a_public_key_is_imported_even_if_with_private_is_given(self, pair):
        assert not provision.import_key(public_pem(pair), use=ENC, with_private=True).has_private

    @BOTH_USES
    def test_k11_a_key_that_is_already_stored_is_refused(self, use, pair):
        provision.import_key(public_pem(pair), use=use)
        before = rows()

        with pytest.raises(KeyRefused, match=f"already stored for use '{use}'"):
            provision.import_key(public_pem(pair), use=use)
        assert rows() == before

    def test_k6_the_same_key_is_refused_for_the_other_use(self, pair):
        provision.import_key(private_pem(pair), use=SIG, with_private=True)

        with pytest.raises(KeyRefused, match="a key must have only one use"):
            provision.import_key(public_pem(pair), use=ENC)
        assert slots() == [("sig", "future")]

    def test_k11_a_revoked_key_is_refused(self, pair):
        kid = provision.import_key(private_pem(pair), use=SIG, with_private=True).kid
        lifecycle.revoke(kid)

        with pytest.raises(KeyRefused, match="already stored"):
            provision.import_key(private_pem(pair), use=SIG, with_private=True)

    def test_k11_the_database_refuses_a_second_row_with_the_same_kid(self, pair):
        provision.import_key(public_pem(pair), use=SIG)

        with pytest.raises(Exception, match=r"(?i)unique|duplicate"), store.locked():
            store.store(pair, use=ENC, status=Key.Status.FUTURE, now=NOW)
        assert slots() == [("sig", "future")]

    def test_k6_a_refused_key_is_not_stored(self):
        with pytest.raises(KeyRefused, match="generate"):
            provision.import_key('{"generate": "RSA", "size": 2048}', use=SIG, with_private=True)
        assert not Key.objects.exists()


class TestExport:
    @BOTH_USES
    @BOTH_FORMATS
    def test_an_exported_public_key_can_be_imported(self, use, file_format, rsa_pool):
        row = provision.generate(use)
        text = provision.export(row, file_format=file_format)
        row.delete()

        assert "PRIVATE" not in text
        again = provision.import_key(text, use=use)
        assert (again.kid, again.public_jwk, again.has_private) == (row.kid, row.public_jwk, False)

    @BOTH_USES
    @BOTH_FORMATS
    def test_an_exported_private_key_can_be_imported_and_works(self, use, file_format, user, initial_keys):
        lifecycle.activate(provision.generate(use).kid, force=True)
        row, token = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())
        key = Key.objects.get(use=use, status="current")
        text = provision.export(key, file_format=file_format, private=True)
        Key.objects.filter(pk=key.pk).delete()
        provision.import_key(text, use=use, with_private=True)

        ring = keys_ring.load()
        signed, _ = jose.decrypt(token, ring.decryption_keys())
        assert jose.verify(signed, ring.verification_keys())[0]["jti"] == str(row.jti)

    def test_the_export_of_a_private_key_is_logged(self, caplog):
        row = provision.generate(SIG)
        provision.export(row, file_format="pem", private=True)

        assert f"private key of key {row.kid} exported" in caplog.text

    def test_the_export_of_a_private_key_that_is_not_stored_is_refused(self, pair):
        row = provision.import_key(public_pem(pair), use=ENC)

        with pytest.raises(KeyUnavailable, match="only the public key"):
            provision.export(row, file_format="pem", private=True)

    @BOTH_FORMATS
    def test_the_export_of_a_modified_public_key_is_refused(self, file_format, rsa_pool):
        """An attacker could otherwise have tokens encrypted for a key of their own."""
        row = provision.generate(ENC)
        row.public_jwk = {**row.public_jwk, "n": rsa_pool.take()["n"]}

        with pytest.raises(KeyUnavailable, match="was modified"):
            provision.export(row, file_format=file_format)

    @pytest.mark.parametrize("value", [{}, {"kty": "RSA"}, {"kty": "RSA", "n": 5, "e": "AQAB"}, [], None, "text"])
    def test_the_export_of_an_invalid_public_key_is_refused(self, value):
        row = provision.generate(ENC)
        row.public_jwk = value

        with pytest.raises(KeyUnavailable, match="was modified"):
            provision.export(row, file_format="pem")


class TestFindAKey:
    def test_a_key_is_found_by_its_kid_or_the_first_six_characters(self, initial_keys):
        for key in initial_keys:
            assert store.find_key(key.kid) == key
            assert store.find_key(key.kid[:6]) == key

    @pytest.mark.parametrize("length", [0, 1, 5])
    def test_an_abbreviated_kid_under_six_characters_is_refused(self, length, initial_keys):
        with pytest.raises(KeyUnavailable, match="there is no key"):
            store.find_key(initial_keys[0].kid[:length])

    def test_the_kid_is_case_sensitive_on_every_database(self, initial_keys):
        kid = initial_keys[0].kid

        with pytest.raises(KeyUnavailable, match="there is no key"):
            store.find_key(kid.swapcase())

    def test_an_abbreviated_kid_that_matches_two_keys_is_refused(self, initial_keys):
        for number, key in enumerate(initial_keys[:2]):
            Key.objects.filter(pk=key.pk).update(kid=f"shared-beginning-{number}")

        with pytest.raises(KeyUnavailable, match="there is more than one key 'shared'"):
            store.find_key("shared")


class TestReseal:
    @pytest.fixture(autouse=True)
    def sealed_under_the_first(self, db):
        with sealed_with(kek(1)):
            provision.init()

    def test_reseal_uses_the_first_key_encryption_key_and_returns_the_number_of_keys(self):
        with sealed_with(kek(2), kek(1)):
            assert provision.reseal() == 3
        assert sealed_under() == {sealing.kek_id(bytes([2]) * 32)}

    def test_a_second_reseal_changes_nothing(self):
        with sealed_with(kek(2), kek(1)):
            provision.reseal()
            before = rows()

            assert provision.reseal() == 0
        assert rows() == before

    def test_reseal_changes_no_other_column(self):
        before = [{**row, "sealed_private_jwk": ""} for row in rows()]
        with sealed_with(kek(2), kek(1)):
            provision.reseal()

        assert [{**row, "sealed_private_jwk": ""} for row in rows()] == before

    def test_o7_every_key_can_be_unsealed_at_every_step_of_a_change_of_key_encryption_key(self):
        with sealed_with(kek(2), kek(1)):
            assert unseal_all() == 3
            provision.reseal()
            assert unseal_all() == 3
        with sealed_with(kek(2)):
            assert unseal_all() == 3
        with sealed_with(kek(1)), pytest.raises(UnsealError):
            provision.check_sealed_keys()

    def test_o7_tokens_are_issued_and_accepted_at_every_step_of_a_change_of_key_encryption_key(self, user):
        def check_a_token() -> None:
            keys_ring.clear_cache()
            _, token = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())
            ring = keys_ring.load()
            jose.verify(jose.decrypt(token, ring.decryption_keys())[0], ring.verification_keys())

        for step in ([kek(1)], [kek(1), kek(2)], [kek(2), kek(1)]):
            with sealed_with(*step):
                check_a_token()
        with sealed_with(kek(2), kek(1)):
            provision.reseal()
            check_a_token()
        with sealed_with(kek(2)):
            check_a_token()

    def test_o5_an_interrupted_reseal_can_be_run_again(self):
        updates: list[str] = []

        def interrupt_the_second_update(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("UPDATE"):
                updates.append(sql)
                if len(updates) == 2:
                    raise KeyboardInterrupt
            return execute(sql, params, many, context)

        with sealed_with(kek(2), kek(1)):
            with connection.execute_wrapper(interrupt_the_second_update), pytest.raises(KeyboardInterrupt):
                provision.reseal()
            assert len(sealed_under()) == 2
            assert unseal_all() == 3
            assert provision.reseal() == 2
        with sealed_with(kek(2)):
            assert unseal_all() == 3

    def test_reseal_does_not_restore_a_private_key_that_was_erased_meanwhile(self, monkeypatch):
        """The private key is erased after reseal has read the row and before it updates the row."""
        seal = sealing.seal

        def erase_meanwhile(*args: Any, **kwargs: Any) -> str:
            Key.objects.filter(kid=kwargs["kid"]).update(sealed_private_jwk="")
            return seal(*args, **kwargs)

        monkeypatch.setattr(sealing, "seal", erase_meanwhile)
        with sealed_with(kek(2), kek(1)):
            assert provision.reseal() == 0
        assert sealed_under() == set()

    def test_k7_reseal_names_a_broken_key_and_reseals_the_others(self):
        broken = Key.objects.get(use=ENC)
        Key.objects.filter(pk=broken.pk).update(sealed_private_jwk=broken.sealed_private_jwk[:-4] + "AAAA")
        with sealed_with(kek(2), kek(1)), pytest.raises(UnsealError, match=broken.kid):
            provision.reseal()

        for row in Key.objects.filter(use=SIG):
            assert sealing.sealed_under(row.sealed_private_jwk) == sealing.kek_id(bytes([2]) * 32)

    def test_o6_reseal_changes_nothing_without_the_old_key_encryption_key(self):
        before = rows()
        with sealed_with(kek(2)), pytest.raises(UnsealError):
            provision.reseal()

        assert rows() == before


class TestAKeyEncryptionKeyDerivedFromSecretKey:
    def test_the_derived_key_can_be_replaced_while_its_entry_is_still_listed(self):
        with override_settings(INSTACCESS={}):
            provision.init()
        own = secrets.token_urlsafe(32)
        with sealed_with(own, DERIVED):
            assert unseal_all() == 3
            assert provision.reseal() == 3
        with sealed_with(own), override_settings(SECRET_KEY="another secret"):
            assert unseal_all() == 3

    def test_o6_the_error_names_the_setting_if_the_derived_key_is_not_listed(self):
        with override_settings(INSTACCESS={}):
            provision.init()

        with sealed_with(kek(1)), pytest.raises(UnsealError, match="SECRET_KEY_FALLBACKS"):
            provision.check_sealed_keys()

    def test_secret_key_can_be_changed_with_a_fallback(self):
        with override_settings(INSTACCESS={}, SECRET_KEY="old"):
            provision.init()
        with override_settings(INSTACCESS={}, SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
            assert unseal_all() == 3
            assert provision.reseal() == 3
        with override_settings(INSTACCESS={}, SECRET_KEY="new"):
            assert unseal_all() == 3
