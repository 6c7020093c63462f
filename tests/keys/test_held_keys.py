"""Tests for keys parsed from stored rows: invalid keys, and rows whose key material has changed."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess import trust
from instaccess.conf import conf
from instaccess.exceptions import KeyUnavailable, UnexpectedError
from instaccess.keys import held_keys, sealing
from instaccess.models import Key
from tests.keys.helpers import BOTH_USES, ENC, SIG


@pytest.fixture
def row(rsa_pool: Any) -> Key:
    """Return an unsaved row with the public key of a signing key."""
    public = trust.public_members(rsa_pool.take(), use=SIG)
    return Key(kid=public["kid"], use=SIG, status=Key.Status.CURRENT, public_jwk=public, sealed_private_jwk="sealed")


class TestThePublicKeyOfARow:
    @BOTH_USES
    def test_public_key_of_a_row_has_the_kid_and_the_use_of_the_row(self, use, row):
        row.use, row.public_jwk = use, row.public_jwk | {"use": str(use)}
        key = held_keys.public_key(row)

        assert (key.thumbprint(), key["use"]) == (row.kid, use)

    @pytest.mark.parametrize(("use", "other"), [(SIG, ENC), (ENC, SIG)])
    def test_public_key_for_another_use_than_the_use_of_its_row_is_refused(self, use, other, row):
        row.use, row.public_jwk = use, row.public_jwk | {"use": str(other)}

        with pytest.raises(KeyUnavailable, match=f"the public key of key {row.kid} was modified"):
            held_keys.public_key(row)

    def test_public_keys_that_were_swapped_between_rows_are_refused(self, row, rsa_pool):
        other = trust.public_members(rsa_pool.take(), use=SIG)

        for kid, public in ((row.kid, other), (other["kid"], row.public_jwk)):
            swapped = Key(kid=kid, use=SIG, public_jwk=public)
            with pytest.raises(KeyUnavailable, match=f"the public key of key {kid} was modified"):
                held_keys.public_key(swapped)

    @pytest.mark.parametrize(
        "value",
        [
            {},
            [],
            "text",
            5,
            None,
            {"kty": "RSA"},
            {"kty": "unknown"},
            {"kty": ["RSA"]},
            {"kty": "RSA", "n": 5, "e": 3},
        ],
        ids=repr,
    )
    def test_key_row_with_a_value_that_is_not_a_public_key_is_refused(self, value, row):
        row.public_jwk = value

        with pytest.raises(KeyUnavailable, match="was modified"):
            held_keys.public_key(row)


class TestThePrivateKeyOfARow:
    @pytest.mark.parametrize(("use", "other"), [(SIG, ENC), (ENC, SIG)])
    def test_private_key_for_another_use_than_the_use_of_its_row_is_refused_on_first_access(
        self, use, other, rsa_pool
    ):
        private = rsa_pool.take_private(other)
        public = trust.public_members(private, use=use)
        sealed = sealing.seal(private, kid=public["kid"], use=use, keks=conf.key_encryption_keys)
        held = held_keys.HeldKey(Key(kid=public["kid"], use=use, public_jwk=public, sealed_private_jwk=sealed))

        with pytest.raises(UnexpectedError):
            held.private()


class TestARowThatIsReadAgain:
    def test_key_row_with_the_same_keys_has_the_same_key_material(self, row):
        assert held_keys.HeldKey(row).same_material_as(row)

    @pytest.mark.parametrize("sealed", ["", "A", "z"])
    def test_key_row_with_another_sealed_private_key_has_different_key_material(self, sealed, row):
        held = held_keys.HeldKey(row)
        row.sealed_private_jwk = sealed

        assert not held.same_material_as(row)

    def test_key_row_with_another_public_key_has_different_key_material(self, row, rsa_pool):
        held = held_keys.HeldKey(row)
        row.public_jwk = trust.public_members(rsa_pool.take(), use=SIG)

        assert not held.same_material_as(row)
