"""Tests of the cache of unwrapped tokens: the checks that run for a cached token, and the size of the cache."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from instaccess import tokens
from instaccess.exceptions import InvalidToken, TokenExpired, TokenRevoked
from instaccess.gateway.unwrapping import TokenCache
from instaccess.tokens import PrivateKey, jose
from tests.support import forks
from tests.support.tokens import NOW, TokenFactory, denying, non_canonical_forms


class ForbiddenKey:
    """A key that equals every key, and with which every RSA operation fails."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


class TestACachedToken:
    @pytest.fixture
    def cache(self) -> TokenCache:
        return TokenCache()

    @pytest.fixture
    def unwrap(self, unwrap_, cache):
        return lambda token, **changes: unwrap_(token, **({"cache": cache, "cache_size": 10} | changes))

    @pytest.fixture
    def no_rsa(self, make) -> dict[str, Any]:
        return {
            "decryption_keys": {make.encryption_kid: PrivateKey(ForbiddenKey())},
            "verification_keys": {make.signing_kid: ForbiddenKey()},
        }

    def test_unwrap_of_a_cached_token_executes_no_rsa_operation(self, make, unwrap, no_rsa):
        token = make.token()
        first = unwrap(token)

        assert unwrap(token, **no_rsa) is first

    def test_unwrap_caches_no_token_if_the_cache_size_is_0(self, make, unwrap, no_rsa):
        token = make.token()
        unwrap(token, cache_size=0)

        with pytest.raises(InvalidToken) as caught:
            unwrap(token, cache_size=0, **no_rsa)
        assert caught.value.code == "decrypt_failed"

    def test_unwrap_uses_no_cached_token_after_the_cache_size_was_reduced_to_0(self, make, unwrap, no_rsa):
        token = make.token()
        unwrap(token)

        with pytest.raises(InvalidToken) as caught:
            unwrap(token, cache_size=0, **no_rsa)
        assert caught.value.code == "decrypt_failed"

    def test_unwrap_caches_no_token_by_default(self, make, unwrap_, cache):
        token = make.token()

        unwrap_(token, cache=cache)

        assert cache.get(token) is None

    def test_unwrap_accepts_a_token_without_a_cache_even_if_a_cache_size_is_given(self, make, unwrap_):
        assert unwrap_(make.token(), cache_size=10)

    def test_unwrap_refuses_a_cached_token_after_the_token_was_revoked(self, make, unwrap, no_rsa):
        token = make.token(jti="gone")
        unwrap(token)

        with pytest.raises(TokenRevoked) as caught:
            unwrap(token, denied=denying("gone"), **no_rsa)
        assert caught.value.jti == "gone"

    def test_unwrap_refuses_a_cached_token_after_the_token_has_expired(self, make, unwrap, no_rsa):
        token = make.token()
        unwrap(token)

        assert unwrap(token, now=NOW + 3599, **no_rsa)
        for now in (NOW + 3600, NOW + 3601):
            with pytest.raises(TokenExpired):
                unwrap(token, now=now, **no_rsa)
            unwrap(token)

    @pytest.mark.parametrize("which", ["decryption_keys", "verification_keys"])
    def test_unwrap_refuses_a_cached_token_after_a_key_of_the_token_was_removed(self, make, unwrap, no_rsa, which):
        token = make.token()
        unwrap(token)

        with pytest.raises(InvalidToken) as caught:
            unwrap(token, **(no_rsa | {which: {"other": ForbiddenKey()}}))
        assert caught.value.code == "unknown_kid"

    def test_unwrap_refuses_a_cached_token_after_another_key_got_the_kid_of_the_token(self, make, unwrap, rsa_pool):
        """The app must compare the keys too, because two keys can have one kid if the kid isn't a thumbprint."""
        token = make.encrypted(make.signed(kid="key-1"))
        same = JWK(**make.signing.export_public(as_dict=True))
        other = JWK(**rsa_pool.take("sig").export_public(as_dict=True))
        unwrap(token, verification_keys={"key-1": make.verification_keys[make.signing_kid]})

        assert unwrap(token, verification_keys={"key-1": same})
        for _ in range(2):
            with pytest.raises(InvalidToken) as caught:
                unwrap(token, verification_keys={"key-1": other})
            assert caught.value.code == "bad_signature"

    def test_unwrap_caches_a_token_with_the_key_that_verified_the_token_even_if_the_jwk_set_is_reloaded(
        self, make, unwrap, rsa_pool, monkeypatch
    ):
        token = make.encrypted(make.signed(kid="key-1"))
        keys = {"key-1": make.verification_keys[make.signing_kid]}
        verify = jose.verify

        def verify_and_replace(*args: Any) -> Any:
            verified = verify(*args)
            keys["key-1"] = JWK(**rsa_pool.take("sig").export_public(as_dict=True))
            return verified

        monkeypatch.setattr(tokens, "verify", verify_and_replace)
        for _ in range(2):
            with pytest.raises(InvalidToken) as caught:
                unwrap(token, verification_keys=keys)
            assert caught.value.code == "bad_signature"

    def test_unwrap_removes_a_refused_token_from_the_cache(self, make, unwrap, no_rsa):
        token = make.token(jti="gone")
        unwrap(token)
        with pytest.raises(TokenRevoked):
            unwrap(token, denied=denying("gone"))

        with pytest.raises(InvalidToken) as caught:
            unwrap(token, **no_rsa)
        assert caught.value.code == "decrypt_failed"

    def test_g4_unwrap_refuses_a_non_canonical_encoding_of_a_cached_token(self, make, unwrap):
        token = make.token()
        unwrap(token)

        for text in non_canonical_forms(token):
            with pytest.raises(InvalidToken):
                unwrap(text)

    def test_unwrap_never_caches_a_refused_token(self, make, unwrap, cache, rsa_pool):
        forger = TokenFactory(rsa_pool.take("sig"), make.encryption)
        for token in (forger.encrypted(forger.signed(kid=make.signing_kid)), make.token(exp=NOW + 9999), "x"):
            with pytest.raises(InvalidToken):
                unwrap(token)
            assert cache.get(token) is None

    def test_new_token_replaces_the_least_recently_used_token_in_the_cache(self, make, unwrap, cache):
        tokens = [make.token() for _ in range(4)]
        for token in tokens[:3]:
            unwrap(token, cache_size=3)
        unwrap(tokens[0], cache_size=3)
        unwrap(tokens[3], cache_size=3)

        assert [cache.get(token) is not None for token in tokens] == [True, False, True, True]

    def test_token_cache_shrinks_after_the_cache_size_was_reduced(self, make, unwrap, cache):
        tokens = [make.token() for _ in range(4)]
        for token in tokens:
            unwrap(token)
        unwrap(make.token(), cache_size=1)

        assert [cache.get(token) for token in tokens] == [None] * 4

    def test_token_cache_contains_digests_and_no_encrypted_tokens(self, make, unwrap, cache):
        token = make.token()
        unwrap(token)

        assert token not in repr(vars(cache))
        assert all(isinstance(key, bytes) and len(key) == 32 for key in cache._tokens)

    def test_threads_share_the_token_cache_without_mixing_tokens(self, make, unwrap, no_rsa):
        tokens = [make.token() for _ in range(20)]
        mixed: list[Any] = []

        def use(seed: int) -> None:
            order = random.Random(seed)
            for _ in range(50):
                token = order.choice(tokens)
                result = unwrap(token, cache_size=5)
                if jose.decrypt(token, make.decryption_keys)[0] != result.signed:
                    mixed.append(token)

        threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert mixed == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
class TestAForkedProcess:
    def test_token_cache_of_a_child_process_is_empty_and_unlocked(self, make, unwrap_):
        cache, token = TokenCache(), make.token()
        unwrapped = unwrap_(token, cache=cache, cache_size=10)

        assert forks.run_in_child(cache._lock, lambda: cache.get(token) is None)
        assert cache.get(token) is unwrapped
