"""Tests of a verifier with default arguments, and of a subclass that treats every token as an InstAccess token."""

from __future__ import annotations

import pytest

from instaccess.exceptions import ForeignToken, InvalidToken, SourceUnavailable
from instaccess.service import Verifier
from instaccess.trust import refreshed, remote_jwks
from tests.service.helpers import USER, good
from tests.support import servers
from tests.support.clocks import Clock


class TestAVerifierWithTheDefaultArguments:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock(frozen=True)
        monkeypatch.setattr(refreshed, "time", clock)
        monkeypatch.setattr(remote_jwks, "time", clock)
        return clock

    @pytest.mark.parametrize(("seconds", "is_accepted"), [(59.9, True), (60, False)])
    def test_c3_verifier_uses_keys_for_60_seconds_after_their_cache_time_while_the_jwks_url_is_faulty(
        self, server: servers.ScriptedServer, token_factory, clock, seconds, is_accepted
    ):
        verifier = Verifier(jwks_url=f"{server.base_url}/jwks", allow_http=True)
        verifier.verify(good(token_factory))
        server.answer_with(500)
        clock.now += 300 + seconds

        if is_accepted:
            assert verifier.verify(good(token_factory, sub=USER)).user_uuid == USER
        else:
            with pytest.raises(SourceUnavailable):
                verifier.verify(good(token_factory))


class TestASubclassThatClaimsEveryToken:
    def test_subclass_refuses_a_token_of_another_issuer_and_does_not_raise_foreign_token(
        self, server: servers.ScriptedServer, token_factory
    ):
        class EveryToken(Verifier):
            def is_ours(self, token: str) -> bool:
                return True

        verifier = EveryToken(jwks_url=f"{server.base_url}/jwks", allow_http=True)

        with pytest.raises(InvalidToken) as refused:
            verifier.verify(good(token_factory, iss="them", jti="the-id"))

        assert not isinstance(refused.value, ForeignToken)
        assert (refused.value.code, refused.value.jti) == ("foreign_issuer", "the-id")
