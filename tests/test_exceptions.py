"""The error tree: stable codes for the log, and a text that an operator can act on."""

from __future__ import annotations

import pickle

import pytest

from instaccess import exceptions
from instaccess.exceptions import (
    AuditError,
    ClaimsTooLarge,
    ConfigError,
    ForeignToken,
    InstAccessError,
    InvalidToken,
    KeyRefused,
    KeyUnavailable,
    TokenExpired,
    TokenRevoked,
    UnsealError,
)

# Log searches and alerts of operators hang on these.
CODES = {
    InstAccessError: "error",
    ConfigError: "config",
    KeyUnavailable: "no_key",
    UnsealError: "unseal",
    KeyRefused: "key_refused",
    ClaimsTooLarge: "claims_too_large",
    AuditError: "audit",
    InvalidToken: "invalid",
    ForeignToken: "foreign_issuer",
    TokenExpired: "expired",
    TokenRevoked: "revoked",
}


class TestTheErrorTree:
    @pytest.mark.parametrize(("kind", "code"), CODES.items())
    def test_has_a_stable_code_for_each(self, kind, code):
        assert kind("what happened").code == code

    def test_has_a_code_of_its_own_for_each(self):
        classes = [value for value in vars(exceptions).values() if isinstance(value, type)]
        errors = [value for value in classes if issubclass(value, Exception)]

        assert len({error.code for error in errors}) == len(errors)
        assert all(issubclass(error, InstAccessError) for error in errors)

    @pytest.mark.parametrize("kind", [ForeignToken, TokenExpired, TokenRevoked])
    def test_has_every_refusal_of_a_token_under_one_root(self, kind):
        assert issubclass(kind, InvalidToken)

    def test_has_no_refusal_of_a_token_among_the_faults_of_ours(self):
        # The first is a 401, the others a 503: a caller that catches one must not swallow the other.
        for kind in (ConfigError, KeyUnavailable, UnsealError, AuditError, ClaimsTooLarge):
            assert not issubclass(kind, InvalidToken)


class TestAnError:
    def test_reads_as_code_and_detail(self):
        assert str(TokenExpired("past its exp")) == "expired: past its exp"

    def test_without_detail_reads_as_its_code(self):
        assert str(TokenExpired()) == "expired"

    def test_may_have_a_narrower_code_without_changing_that_of_others(self):
        assert InvalidToken("no key opens it", code="decrypt_failed").code == "decrypt_failed"
        assert InvalidToken().code == "invalid"

    def test_of_a_setting_knows_which(self):
        assert ConfigError("bad", setting="LIFETIME").setting == "LIFETIME"

    def test_survives_the_way_between_processes(self):
        # Parallel test runners and task queues send errors on as pickles.
        error = pickle.loads(pickle.dumps(ConfigError("bad", setting="LIFETIME")))

        assert (error.detail, error.code, error.setting) == ("bad", "config", "LIFETIME")
