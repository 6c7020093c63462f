"""Tests that a reader tries the key with the `kid` of the token, or at most three keys if the token has no `kid`."""

from __future__ import annotations

from collections.abc import Iterator

import jwt
import pytest
from jwcrypto.jwk import JWK

from instaccess.exceptions import InvalidToken
from instaccess.tokens import PrivateKey, jose
from tests.tokens.handmade import encrypted_as


class CountingKeys(dict[str, JWK]):
    """A key mapping that counts how many keys are tried for a token without `kid`."""

    used = 0

    def items(self) -> Iterator[tuple[str, JWK]]:  # type: ignore[override]
        for item in super().items():
            self.used += 1
            yield item


class TestATokenWithoutKid:
    def test_g10_decrypt_tries_three_keys_in_order_for_a_token_without_kid(self, rsa_pool, signed):
        others = {f"k{n}": rsa_pool.take_private("enc") for n in (1, 2)}
        third = rsa_pool.take("enc")
        token = encrypted_as({"alg": "RSA-OAEP", "enc": "A256GCM"}, signed, third)

        assert jose.decrypt(token, {**others, "k3": PrivateKey(third)}) == (signed, "k3")

    def test_g10_verify_tries_three_keys_in_order_for_a_token_without_kid(self, rsa_pool):
        keys = {f"k{n}": rsa_pool.take("sig") for n in (1, 2, 3)}
        token = jwt.encode({"sub": "ada"}, keys["k3"].export_to_pem(True, None), "RS256")

        assert jose.verify(token, keys) == ({"sub": "ada"}, "k3")

    def test_g10_decrypt_tries_at_most_three_keys_for_a_token_without_kid(self, rsa_pool, signed):
        keys = CountingKeys({f"k{n}": rsa_pool.take_private("enc") for n in (1, 2, 3, 4)})
        token = encrypted_as({"alg": "RSA-OAEP", "enc": "A256GCM"}, signed, keys["k4"].public())

        with pytest.raises(InvalidToken) as refusal:
            jose.decrypt(token, keys)

        assert refusal.value.code == "decrypt_failed"
        assert keys.used == 3

    def test_g10_verify_tries_at_most_three_keys_for_a_token_without_kid(self, rsa_pool):
        keys = CountingKeys({f"k{n}": rsa_pool.take("sig") for n in (1, 2, 3, 4)})
        token = jwt.encode({"sub": "ada"}, keys["k4"].export_to_pem(True, None), "RS256")

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(token, keys)

        assert refusal.value.code == "bad_signature"
        assert keys.used == 3

    def test_decrypt_and_verify_refuse_every_token_if_there_are_no_keys(self, rsa_pool, signed):
        encrypted = encrypted_as({"alg": "RSA-OAEP", "enc": "A256GCM"}, signed, rsa_pool.take("enc"))
        bare = jwt.encode({"sub": "ada"}, rsa_pool.take("sig").export_to_pem(True, None), "RS256")

        for refused in (lambda: jose.decrypt(encrypted, {}), lambda: jose.verify(bare, {})):
            with pytest.raises(InvalidToken) as refusal:
                refused()
            assert refusal.value.code == "unknown_kid"


class NewKeys(jose.ReloadableKeys):
    """A mapping that contains `keys` before `reload` is called, and `reloaded` after the call. Counts the calls."""

    def __init__(self, keys: dict[str, JWK], reloaded: dict[str, JWK]) -> None:
        self.keys_, self.reloaded = keys, reloaded
        self.reloads = 0
        self.read: list[str] = []

    def reload(self) -> None:
        self.reloads += 1
        self.keys_ = self.reloaded

    def __getitem__(self, kid: str) -> JWK:
        self.read.append(kid)
        return self.keys_[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys_)

    def __len__(self) -> int:
        return len(self.keys_)


class KeysWithoutReload(jose.ReloadableKeys):
    __getitem__ = __iter__ = __len__ = NotImplemented


class TestReloadableKeysWithoutReload:
    def test_subclass_of_reloadable_keys_without_a_reload_method_cannot_be_instantiated(self):
        with pytest.raises(TypeError, match="reload"):
            KeysWithoutReload()


class TestATokenWithoutKidThatNoKeyVerifies:
    def signed(self, key: JWK, **header: str) -> str:
        return jwt.encode({"sub": "ada"}, key.export_to_pem(True, None), "RS256", headers=header)

    def test_c14_verify_reloads_the_keys_once_and_accepts_a_new_key_for_a_token_without_kid(self, rsa_pool):
        old, new = rsa_pool.take("sig"), rsa_pool.take("sig")
        keys = NewKeys({"old": old}, {"new": new, "old": old})

        assert jose.verify(self.signed(new), keys) == ({"sub": "ada"}, "new")
        assert keys.reloads == 1

    def test_c14_verify_accepts_a_token_without_kid_if_the_new_key_has_the_kid_of_the_old_key(self, rsa_pool):
        old, new = rsa_pool.take("sig"), rsa_pool.take("sig")

        assert jose.verify(self.signed(new), NewKeys({"k": old}, {"k": new}))[1] == "k"

    def test_c14_verify_refuses_a_token_without_kid_that_no_reloaded_key_verifies(self, rsa_pool):
        old, new = rsa_pool.take("sig"), rsa_pool.take("sig")
        keys = NewKeys({"old": old}, {"old": old})

        with pytest.raises(InvalidToken) as refusal:
            jose.verify(self.signed(new), keys)

        assert (refusal.value.code, keys.reloads) == ("bad_signature", 1)

    def test_c14_verify_does_not_reload_the_keys_for_a_verified_token_or_a_token_with_kid(self, rsa_pool):
        old, new = rsa_pool.take("sig"), rsa_pool.take("sig")
        keys = NewKeys({"old": old}, {"new": new})

        assert jose.verify(self.signed(old), keys)[1] == "old"
        with pytest.raises(InvalidToken):
            jose.verify(self.signed(new, kid="old"), keys)
        assert keys.reloads == 0


class TestATokenWithKid:
    def test_decrypt_and_verify_use_only_the_key_with_the_kid_of_the_token(
        self, encrypted, signed, rsa_pool, signing_key, encryption_key
    ):
        # The mapping contains the right key under a wrong kid, so the reader must not find the key.
        with pytest.raises(InvalidToken) as decryption:
            jose.decrypt(encrypted, {"other": PrivateKey(encryption_key)})
        with pytest.raises(InvalidToken) as verification:
            jose.verify(signed, {"other": signing_key})

        assert (decryption.value.code, verification.value.code) == ("unknown_kid", "unknown_kid")

    def test_g6_decrypt_and_verify_refuse_a_token_of_another_key_with_the_same_kid(self, encrypted, signed, rsa_pool):
        rsa_pool.take(), rsa_pool.take()

        with pytest.raises(InvalidToken) as decryption:
            jose.decrypt(encrypted, {"e1": PrivateKey(rsa_pool.take("enc"))})
        with pytest.raises(InvalidToken) as verification:
            jose.verify(signed, {"s1": rsa_pool.take("sig")})

        assert (decryption.value.code, verification.value.code) == ("decrypt_failed", "bad_signature")

    def test_decrypt_and_verify_refuse_a_key_for_the_wrong_use(self, encrypted, signed, signing_key, encryption_key):
        # Simulate an operator who has swapped the signing key and the encryption key in the settings.
        with pytest.raises(InvalidToken):
            jose.decrypt(encrypted, {"e1": PrivateKey(JWK(**{**encryption_key, "use": "sig"}))})
        with pytest.raises(InvalidToken):
            jose.verify(signed, {"s1": JWK(**{**signing_key, "use": "enc"})})
