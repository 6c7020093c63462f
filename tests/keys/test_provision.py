"""Tests for generating and finding keys."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import override_settings

from instaccess import trust
from instaccess.conf import conf
from instaccess.exceptions import KeyUnavailable, UnsealError
from instaccess.keys import lifecycle, provision, queries, sealing
from instaccess.models import Key
from tests.keys.helpers import BOTH_USES, ENC, SIG, rows, slots, to_public_pem
from tests.support import key_texts

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")


def kek(number: int) -> str:
    return base64.urlsafe_b64encode(bytes([number]) * 32).rstrip(b"=").decode()


def sealed_with(*entries: str) -> Any:
    return override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": list(entries)})


class TestInit:
    def test_init_generates_two_signing_keys_and_a_current_encryption_key(self):
        generated = provision.init(now=NOW)

        assert slots() == [("enc", "current"), ("sig", "current"), ("sig", "future")]
        assert {key.kid for key in generated} == set(Key.objects.values_list("kid", flat=True))
        assert {key.created_at for key in generated} == {NOW}
        assert all(key.has_private for key in generated)

    def test_k5_a_second_init_changes_no_key(self):
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
            return rsa_pool.take_private(use)

        monkeypatch.setattr(trust, "generate_key", generate)

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
        public = lifecycle.activate(key_texts.import_key(to_public_pem(pair), use=ENC).kid)
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

    def test_k7_init_generates_no_key_if_a_private_key_was_modified(self, initial_keys):
        Key.objects.get(status="future").delete()
        enc = Key.objects.get(use=ENC)
        Key.objects.filter(use=SIG).update(sealed_private_jwk=enc.sealed_private_jwk)
        before = rows()

        with pytest.raises(UnsealError, match="was modified or belongs to another key"):
            provision.init()
        assert rows() == before


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
    def test_the_kid_of_a_generated_key_is_the_thumbprint_and_no_private_member_is_stored_unencrypted(self, use):
        row = provision.generate(use)
        private = sealing.unseal(row.sealed_private_jwk, kid=row.kid, use=use, keks=conf.key_encryption_keys)

        assert row.kid == row.public_jwk["kid"] == private.thumbprint()
        assert set(row.public_jwk) == {"kty", "n", "e", "use", "kid"}
        for name in PRIVATE_MEMBERS:
            assert private.reveal()[name] not in str(Key.objects.filter(pk=row.pk).values())


class TestFindKey:
    def test_find_key_accepts_a_kid_or_its_first_six_characters(self, initial_keys):
        for key in initial_keys:
            assert queries.find_key(key.kid) == key
            assert queries.find_key(key.kid[:6]) == key

    @pytest.mark.parametrize("length", [0, 1, 5])
    def test_find_key_refuses_an_abbreviated_kid_under_six_characters(self, length, initial_keys):
        with pytest.raises(KeyUnavailable, match="there is no key"):
            queries.find_key(initial_keys[0].kid[:length])

    def test_find_key_is_case_sensitive_on_every_database(self, initial_keys):
        kid = initial_keys[0].kid

        with pytest.raises(KeyUnavailable, match="there is no key"):
            queries.find_key(kid.swapcase())

    def test_find_key_refuses_an_abbreviated_kid_that_matches_two_keys(self, initial_keys):
        for number, key in enumerate(initial_keys[:2]):
            Key.objects.filter(pk=key.pk).update(kid=f"shared-beginning-{number}")

        with pytest.raises(KeyUnavailable, match="there is more than one key 'shared'"):
            queries.find_key("shared")
