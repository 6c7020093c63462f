"""Tests for resealing private keys."""

from __future__ import annotations

import base64
import secrets
import time
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from instaccess.conf import DERIVED, KeyEncryptionKey, kek_id
from instaccess.exceptions import UnsealError
from instaccess.issuer import issuing
from instaccess.keys import provision, sealing, store
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.tokens import jose

pytestmark = pytest.mark.django_db

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION


def kek(number: int) -> str:
    return base64.urlsafe_b64encode(bytes([number]) * 32).rstrip(b"=").decode()


def sealed_with(*entries: str) -> Any:
    return override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": list(entries)})


def rows() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


def unseal_all() -> int:
    """Unseal every key with the configured key-encryption keys, and return the number of keys."""
    provision.check_sealed_keys()
    return Key.objects.exclude(sealed_private_jwk="").count()


def sealed_under() -> set[str]:
    return {sealing.sealed_under(text) for text in Key.objects.values_list("sealed_private_jwk", flat=True) if text}


class TestReseal:
    @pytest.fixture(autouse=True)
    def sealed_under_the_first(self, db):
        with sealed_with(kek(1)):
            provision.init()

    def test_reseal_uses_the_first_key_encryption_key_and_returns_the_number_of_keys(self):
        with sealed_with(kek(2), kek(1)):
            assert provision.reseal() == 3
        assert sealed_under() == {kek_id(KeyEncryptionKey(bytes([2]) * 32))}

    def test_a_second_reseal_changes_no_key(self):
        with sealed_with(kek(2), kek(1)):
            provision.reseal()
            before = rows()

            assert provision.reseal() == 0
        assert rows() == before

    def test_reseal_changes_only_the_sealed_private_key_and_the_hmac(self):
        renewed = {"sealed_private_jwk": "", "mac": ""}
        before = [row | renewed for row in rows()]
        with sealed_with(kek(2), kek(1)):
            provision.reseal()

        assert [row | renewed for row in rows()] == before

    def test_o7_every_key_can_be_unsealed_throughout_a_replacement_of_the_key_encryption_key(self):
        with sealed_with(kek(2), kek(1)):
            assert unseal_all() == 3
            provision.reseal()
            assert unseal_all() == 3
        with sealed_with(kek(2)):
            assert unseal_all() == 3
        with sealed_with(kek(1)), pytest.raises(UnsealError):
            provision.check_sealed_keys()

    def test_o7_tokens_are_issued_and_accepted_throughout_a_change_of_the_key_encryption_key(self, user):
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

    def test_reseal_does_not_restore_a_private_key_that_was_erased_during_the_reseal(self, monkeypatch):
        """Erase the private key after reseal has read the row and before reseal updates the row."""
        seal = sealing.seal

        def erase_meanwhile(*args: Any, **kwargs: Any) -> str:
            store.erase(Key.objects.get(kid=kwargs["kid"]))
            return seal(*args, **kwargs)

        monkeypatch.setattr(sealing, "seal", erase_meanwhile)
        with sealed_with(kek(2), kek(1)):
            assert provision.reseal() == 0
        assert sealed_under() == set()

    def test_k7_reseal_names_an_undecryptable_key_and_reseals_the_other_keys(self):
        undecryptable = Key.objects.get(use=ENC)
        Key.objects.filter(pk=undecryptable.pk).update(
            sealed_private_jwk=undecryptable.sealed_private_jwk[:-4] + "AAAA"
        )
        with sealed_with(kek(2), kek(1)), pytest.raises(UnsealError, match=undecryptable.kid):
            provision.reseal()

        for row in Key.objects.filter(use=SIG):
            assert sealing.sealed_under(row.sealed_private_jwk) == kek_id(KeyEncryptionKey(bytes([2]) * 32))

    def test_o6_reseal_changes_no_key_if_the_old_key_encryption_key_is_missing(self):
        before = rows()
        with sealed_with(kek(2)), pytest.raises(UnsealError):
            provision.reseal()

        assert rows() == before


class TestAKeyEncryptionKeyDerivedFromSecretKey:
    def test_derived_key_encryption_key_can_be_replaced_while_the_setting_lists_secret_key(self):
        with override_settings(INSTACCESS={}):
            provision.init()
        own = secrets.token_urlsafe(32)
        with sealed_with(own, DERIVED):
            assert unseal_all() == 3
            assert provision.reseal() == 3
        with sealed_with(own), override_settings(SECRET_KEY="another secret"):
            assert unseal_all() == 3

    def test_o6_error_of_unsealing_names_the_setting_if_the_derived_key_encryption_key_is_not_listed(self):
        with override_settings(INSTACCESS={}):
            provision.init()

        with sealed_with(kek(1)), pytest.raises(UnsealError, match="SECRET_KEY_FALLBACKS"):
            provision.check_sealed_keys()

    def test_keys_can_be_unsealed_after_a_change_of_secret_key_with_a_fallback(self):
        with override_settings(INSTACCESS={}, SECRET_KEY="old"):
            provision.init()
        with override_settings(INSTACCESS={}, SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
            assert unseal_all() == 3
            assert provision.reseal() == 3
        with override_settings(INSTACCESS={}, SECRET_KEY="new"):
            assert unseal_all() == 3
