"""Tests of the key ring with refused keys. The key ring raises only the errors of the keys that a caller needs."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from instaccess.exceptions import KeyAltered, KeyUnavailable
from instaccess.keys import ring as keys_ring
from instaccess.keys.held_keys import RefusedKey
from instaccess.models import Key
from tests.keys.helpers import BOTH_USES, ENC, SIG, key_of
from tests.support.stored_keys import insert_with_sql, write

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

EACH_USE_AND_THE_OTHER = pytest.mark.parametrize(("use", "other"), [(SIG, ENC), (ENC, SIG)])


def read_current(ring: keys_ring.KeyRing, use: Key.Use) -> Any:
    return ring.signing_key() if use == SIG else ring.encryption_key()


def read_all(ring: keys_ring.KeyRing, use: Key.Use) -> list[Any]:
    return [*ring.verification_keys(), *ring.published()] if use == SIG else [*ring.decryption_keys()]


def lose_key_encryption_key(key: Key) -> None:
    """Replace the HMAC of a row with an HMAC whose key-encryption key is not configured."""
    key.mac = ""
    with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
        write([key])


class TestOnlyKeysOfTheOtherUseAreRefused:
    @EACH_USE_AND_THE_OTHER
    def test_key_ring_without_keys_of_a_use_is_empty_if_the_keys_of_the_other_use_are_refused(self, use, other):
        Key.objects.filter(use=use).delete()
        Key.objects.filter(use=other).update(alg="odd")
        ring = keys_ring.load()

        assert read_all(ring, use) == []
        with pytest.raises(KeyAltered):
            read_all(ring, other)

    @EACH_USE_AND_THE_OTHER
    def test_missing_current_key_is_reported_even_if_the_current_key_of_the_other_use_is_refused(self, use, other):
        Key.objects.filter(use=use).delete()
        Key.objects.filter(use=other).update(alg="odd")

        with pytest.raises(KeyUnavailable, match=f"there is no current {use.label} key"):
            read_current(keys_ring.load(), use)

    def test_encryption_key_that_cannot_be_checked_is_not_a_verification_key(self):
        key = key_of(ENC, "current")
        lose_key_encryption_key(key)

        assert keys_ring.load().verification_keys().get(key.kid) is None

    def test_signing_key_that_cannot_be_checked_is_not_a_decryption_key(self):
        key = key_of(SIG, "current")
        lose_key_encryption_key(key)

        assert keys_ring.load().decryption_keys().get(key.kid) is None


class TestAFutureKeyIsRefused:
    @BOTH_USES
    def test_missing_current_key_is_reported_even_if_a_future_key_is_refused(self, use, rsa_pool):
        Key.objects.filter(use=use).delete()
        insert_with_sql(rsa_pool.take(use), use=use)

        with pytest.raises(KeyUnavailable, match=f"there is no current {use.label} key"):
            read_current(keys_ring.load(), use)


class TestAllKeysAreRefused:
    def test_key_ring_raises_the_error_of_the_first_refused_key(self):
        refused = [RefusedKey(kid, SIG, "past", KeyAltered(f"{kid} was modified")) for kid in ("first", "second")]

        with pytest.raises(KeyAltered, match="first was modified"):
            keys_ring.KeyRing(refused=tuple(refused)).verification_keys()


class TestARevokedKeyIsModified:
    def test_modified_row_of_a_revoked_key_is_not_reported_by_the_key_ring(self, caplog):
        write([key_of(SIG, "future")], status="revoked")
        Key.objects.filter(status="revoked").update(alg="odd")

        assert keys_ring.load().refused == ()
        assert "can't be used" not in caplog.text


class TestTheKeysForIssuing:
    @pytest.fixture(params=[keys_ring.check_issuing_keys, keys_ring.sign_once], ids=lambda use: use.__name__)
    def use_keys(self, request):
        return request.param

    def test_usable_keys_for_issuing_raise_no_error(self, use_keys):
        use_keys()

    def test_signing_key_for_issuing_that_cannot_be_unsealed_raises_an_error(self, use_keys):
        Key.objects.filter(use=SIG).update(sealed_private_jwk=key_of(ENC, "current").sealed_private_jwk)

        with pytest.raises(KeyUnavailable, match=r"the sealed private key of key .* was modified"):
            use_keys()

    def test_missing_signing_key_for_issuing_raises_an_error(self, use_keys):
        Key.objects.filter(use=SIG, status="current").delete()

        with pytest.raises(KeyUnavailable, match="there is no current signing key"):
            use_keys()

    def test_check_issuing_keys_raises_an_error_if_the_encryption_key_is_missing(self):
        Key.objects.filter(use=ENC, status="current").delete()

        with pytest.raises(KeyUnavailable, match="there is no current encryption key"):
            keys_ring.check_issuing_keys()
