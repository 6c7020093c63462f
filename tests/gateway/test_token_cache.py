"""Opened tokens that are remembered: what is checked again, and how many are kept."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from instaccess import tokens
from instaccess.exceptions import InvalidToken, TokenExpired, TokenRevoked
from instaccess.gateway.unwrapping import TokenCache
from instaccess.tokens import jose
from tests.support.tokens import NOW, Makes, respellings


class ForbiddenKey:
    """Stands for whichever key, and does nothing: what comes to need it fails."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


class TestARememberedToken:
    @pytest.fixture
    def cache(self) -> TokenCache:
        return TokenCache()

    @pytest.fixture
    def opens(self, open_, cache):
        return lambda token, **changes: open_(token, **({"cache": cache, "cache_size": 10} | changes))

    @pytest.fixture
    def no_rsa(self, make) -> dict[str, Any]:
        return {
            "decryption_keys": {make.encryption_kid: ForbiddenKey()},
            "verification_keys": {make.signing_kid: ForbiddenKey()},
        }

    def test_is_opened_without_rsa_the_second_time(self, make, opens, no_rsa):
        token = make.token()
        first = opens(token)

        assert opens(token, **no_rsa) is first

    def test_is_not_there_where_the_setting_is_off(self, make, opens, no_rsa):
        token = make.token()
        opens(token, cache_size=0)

        with pytest.raises(InvalidToken) as caught:
            opens(token, cache_size=0, **no_rsa)
        assert caught.value.code == "decrypt_failed"

    def test_is_refused_once_revoked(self, make, opens, no_rsa):
        token = make.token(jti="gone")
        opens(token)

        with pytest.raises(TokenRevoked) as caught:
            opens(token, denied={"gone"}, **no_rsa)
        assert caught.value.jti == "gone"

    def test_is_refused_once_expired(self, make, opens, no_rsa):
        token = make.token()
        opens(token)

        assert opens(token, now=NOW + 3599, **no_rsa)
        with pytest.raises(TokenExpired):
            opens(token, now=NOW + 3600, **no_rsa)

    @pytest.mark.parametrize("which", ["decryption_keys", "verification_keys"])
    def test_is_refused_once_a_key_it_was_under_is_gone(self, make, opens, no_rsa, which):
        token = make.token()
        opens(token)

        with pytest.raises(InvalidToken) as caught:
            opens(token, **(no_rsa | {which: {"other": ForbiddenKey()}}))
        assert caught.value.code == "unknown_kid"

    def test_is_refused_once_its_kid_is_that_of_another_key(self, make, opens, rsa_pool):
        """A JWKS of somebody else's need not name its keys by their thumbprints."""
        token = make.encrypted(make.signed(kid="key-1"))
        same = JWK(**make.signing.export_public(as_dict=True))
        other = JWK(**rsa_pool.take("sig").export_public(as_dict=True))
        opens(token, verification_keys={"key-1": make.verification_keys[make.signing_kid]})

        assert opens(token, verification_keys={"key-1": same})
        for _ in range(2):
            with pytest.raises(InvalidToken) as caught:
                opens(token, verification_keys={"key-1": other})
            assert caught.value.code == "bad_signature"

    def test_is_remembered_under_the_key_that_verified_it_though_the_set_is_read_anew_meanwhile(
        self, make, opens, rsa_pool, monkeypatch
    ):
        token = make.encrypted(make.signed(kid="key-1"))
        keys = {"key-1": make.verification_keys[make.signing_kid]}
        verify = jose.verify

        def verify_and_replace(*args: Any) -> Any:
            found = verify(*args)
            keys["key-1"] = JWK(**rsa_pool.take("sig").export_public(as_dict=True))
            return found

        monkeypatch.setattr(tokens, "verify", verify_and_replace)
        for _ in range(2):
            with pytest.raises(InvalidToken) as caught:
                opens(token, verification_keys=keys)
            assert caught.value.code == "bad_signature"

    def test_is_forgotten_when_it_is_refused(self, make, opens, no_rsa):
        token = make.token(jti="gone")
        opens(token)
        with pytest.raises(TokenRevoked):
            opens(token, denied={"gone"})

        with pytest.raises(InvalidToken) as caught:
            opens(token, **no_rsa)
        assert caught.value.code == "decrypt_failed"

    def test_g4_does_not_help_another_spelling_of_itself(self, make, opens):
        token = make.token()
        opens(token)

        for text in respellings(token):
            with pytest.raises(InvalidToken):
                opens(text)

    def test_was_a_good_one_no_refused_token_is_kept(self, make, opens, cache, rsa_pool):
        forger = Makes(rsa_pool.take("sig"), make.encryption)
        for token in (forger.encrypted(forger.signed(kid=make.signing_kid)), make.token(exp=NOW + 9999), "x"):
            with pytest.raises(InvalidToken):
                opens(token)
            assert cache.get(token) is None

    def test_pushes_out_the_one_that_was_used_longest_ago(self, make, opens, cache):
        tokens = [make.token() for _ in range(4)]
        for token in tokens[:3]:
            opens(token, cache_size=3)
        opens(tokens[0], cache_size=3)
        opens(tokens[3], cache_size=3)

        assert [cache.get(token) is not None for token in tokens] == [True, False, True, True]

    def test_fits_when_the_setting_shrinks(self, make, opens, cache):
        tokens = [make.token() for _ in range(4)]
        for token in tokens:
            opens(token)
        opens(make.token(), cache_size=1)

        assert [cache.get(token) for token in tokens] == [None] * 4

    def test_is_kept_under_a_digest_so_that_a_dump_of_the_memory_shows_no_encrypted_text(self, make, opens, cache):
        token = make.token()
        opens(token)

        assert token not in repr(vars(cache))
        assert all(isinstance(key, bytes) and len(key) == 32 for key in cache._tokens)

    def test_is_shared_by_threads(self, make, opens, no_rsa):
        tokens = [make.token() for _ in range(20)]
        wrong: list[Any] = []

        def use(seed: int) -> None:
            order = random.Random(seed)
            for _ in range(50):
                token = order.choice(tokens)
                opened = opens(token, cache_size=5)
                if jose.decrypt(token, make.decryption_keys)[0] != opened.signed:
                    wrong.append(token)

        threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
