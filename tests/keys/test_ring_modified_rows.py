"""Tests for the key ring with modified rows: modified keys are skipped, and all other keys stay usable."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from instaccess.conf import conf
from instaccess.exceptions import UnsealError
from instaccess.keys import lifecycle
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.tokens import jose
from instaccess.trust import refreshed
from tests.support import stored_keys
from tests.support.clocks import Clock

pytestmark = pytest.mark.django_db

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(frozen=True)
    monkeypatch.setattr(refreshed, "time", clock)
    return clock


def flip_character(text: str, at: int) -> str:
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


def logged_errors(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.usefixtures("initial_keys")
class TestAModifiedSealedKey:
    @pytest.fixture
    def two(self):
        """Rotate the encryption keys. Returns the past key and the current key."""
        past = lifecycle.rotate(ENC, force=True).retired
        return past, Key.objects.get(use=ENC, status="current")

    @pytest.mark.parametrize("part", range(5))
    def test_k7_key_ring_skips_a_sealed_key_with_a_modified_part_and_uses_the_other_keys(self, part, two, caplog):
        past, current = two
        parts = past.sealed_private_jwk.split(".")
        parts[part] = flip_character(parts[part], len(parts[part]) // 2)
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=".".join(parts))
        ring = keys_ring.load()

        with pytest.raises(UnsealError):
            ring.decryption_keys()[past.kid]
        usable = list(ring.decryption_keys())
        assert current.kid in usable
        assert past.kid not in usable
        signed = jose.sign(b"{}", ring.signing_key().private(), kid=ring.signing_key().kid)
        assert jose.verify(signed, ring.verification_keys())[0] == {}
        assert past.kid in logged_errors(caplog)[0]

    def test_k7_sealed_keys_swapped_between_rows_cannot_be_unsealed(self, two, caplog):
        past, current = two
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=current.sealed_private_jwk)
        Key.objects.filter(pk=current.pk).update(sealed_private_jwk=past.sealed_private_jwk)
        ring = keys_ring.load()

        for kid in (past.kid, current.kid):
            with pytest.raises(UnsealError):
                ring.decryption_keys()[kid]
        assert {past.kid, current.kid}.isdisjoint(list(ring.decryption_keys()))
        assert ring.signing_key().private().has_private
        assert all(any(kid in line for line in logged_errors(caplog)) for kid in (past.kid, current.kid))

    def test_k7_key_ring_logs_a_modified_key_once(self, two, clock, caplog):
        past, _ = two
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=flip_character(past.sealed_private_jwk, 500))
        for _ in range(5):
            list(keys_ring.current_ring().decryption_keys())
            clock.now += conf.key_cache_seconds

        assert len(logged_errors(caplog)) == 1
        assert f"the sealed private key of key {past.kid} was modified" in logged_errors(caplog)[0]

    def test_k7_key_ring_raises_an_error_instead_of_signing_if_the_current_key_is_modified(self):
        kid = keys_ring.load().signing_key().kid
        row = Key.objects.get(kid=kid)
        Key.objects.filter(kid=kid).update(sealed_private_jwk=flip_character(row.sealed_private_jwk, 500))

        with pytest.raises(UnsealError):
            keys_ring.load().signing_key().private()

    def test_k7_key_ring_uses_a_restored_key_again(self, two, clock):
        past, _ = two
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=flip_character(past.sealed_private_jwk, 500))
        assert past.kid not in list(keys_ring.current_ring().decryption_keys())
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=past.sealed_private_jwk)
        clock.now += conf.key_cache_seconds

        assert past.kid in list(keys_ring.current_ring().decryption_keys())

    def test_o6_no_key_is_usable_if_the_key_encryption_key_is_lost(self, caplog):
        """The app must use no key, because the app can't detect forged rows without the key-encryption key."""
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
            ring = keys_ring.load()

            for read in (ring.decryption_keys, ring.verification_keys, ring.published, ring.signing_key):
                with pytest.raises(UnsealError, match="KEY_ENCRYPTION_KEYS") as caught:
                    read()
                assert caught.value.code == "kek_missing"
        assert "KEY_ENCRYPTION_KEYS" in logged_errors(caplog)[0]


@pytest.mark.usefixtures("initial_keys")
class TestAKeyRowWhoseKeyEncryptionKeyIsNotConfigured:
    """Tests of a key row that can't be checked, because the key-encryption key of its HMAC is missing.

    The key ring must raise an error. If the key ring only skipped the key, valid tokens of the key would be refused.
    """

    def write_with_another_key(self, row: Key) -> None:
        row.mac = ""
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
            stored_keys.write([row])

    def test_o6_missing_key_encryption_key_of_a_row_makes_only_the_public_key_of_the_row_unusable(self):
        future, current = Key.objects.get(status="future"), Key.objects.get(use=SIG, status="current")
        self.write_with_another_key(future)
        keys = keys_ring.load().verification_keys()

        for access in (lambda: keys[future.kid], lambda: keys.get(future.kid), lambda: future.kid in keys):
            with pytest.raises(UnsealError) as caught:
                access()
            assert caught.value.code == "kek_missing"
        assert (list(keys), len(keys)) == ([current.kid], 1)
        assert keys[current.kid]["kid"] == current.kid

    def test_o6_missing_key_encryption_key_of_a_row_makes_only_the_private_key_of_the_row_unusable(self):
        past = lifecycle.rotate(ENC, force=True).retired
        current = Key.objects.get(use=ENC, status="current")
        self.write_with_another_key(past)
        keys = keys_ring.load().decryption_keys()

        for access in (lambda: keys[past.kid], lambda: keys.get(past.kid)):
            with pytest.raises(UnsealError) as caught:
                access()
            assert caught.value.code == "kek_missing"
        assert current.kid in keys
        assert past.kid not in list(keys)
        assert keys[current.kid].has_private


@pytest.mark.usefixtures("initial_keys")
class TestAModifiedPublicKey:
    def modify(self, kid: str, **members: Any) -> None:
        row = Key.objects.get(kid=kid)
        row.public_jwk = {**row.public_jwk, **members}
        row.save()

    @pytest.mark.parametrize("member", ["n", "e", "use", "kty"])
    def test_key_ring_skips_a_modified_public_key_and_uses_the_other_keys(self, member, rsa_pool, caplog):
        future = Key.objects.get(status="future").kid
        other = {"n": rsa_pool.take()["n"], "e": "Aw", "use": "enc", "kty": "EC"}
        self.modify(future, **{member: other[member]})
        ring = keys_ring.load()

        assert set(ring.verification_keys()) == {ring.signing_key().kid}
        assert f"the row of key {future} was modified" in logged_errors(caplog)[0]

    @pytest.mark.parametrize("value", [{}, [], "text", 5])
    def test_key_ring_skips_an_invalid_public_key(self, value):
        future = Key.objects.get(status="future").kid
        Key.objects.filter(kid=future).update(public_jwk=value)

        assert future not in keys_ring.load().verification_keys()

    def test_key_ring_skips_a_public_key_that_was_modified_after_caching(self, rsa_pool):
        ring = keys_ring.load()
        kid = ring.signing_key().kid
        self.modify(kid, n=rsa_pool.take()["n"])

        assert kid not in keys_ring.load(ring.keys).verification_keys()

    def test_k9_a_private_member_added_to_a_public_key_is_not_published(self):
        kid = keys_ring.load().signing_key().kid
        private = keys_ring.load().signing_key().private().reveal()
        self.modify(kid, **{name: private[name] for name in ("d", "p", "q", "dp", "dq", "qi")})

        for published in keys_ring.load().published():
            assert set(published) == {"kty", "n", "e", "use", "alg", "kid"}
