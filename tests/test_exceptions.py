"""Tests of the error classes, which have stable codes for the log and texts for operators."""

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

# If a code changed, log searches and alerts of operators would break.
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


class TestTheErrorClasses:
    @pytest.mark.parametrize(("kind", "code"), CODES.items())
    def test_error_class_has_a_stable_code(self, kind, code):
        assert kind("what happened").code == code

    def test_every_error_class_has_its_own_code(self):
        classes = [value for value in vars(exceptions).values() if isinstance(value, type)]
        errors = [value for value in classes if issubclass(value, Exception)]

        assert len({error.code for error in errors}) == len(errors)
        assert all(issubclass(error, InstAccessError) for error in errors)

    @pytest.mark.parametrize("kind", [ForeignToken, TokenExpired, TokenRevoked])
    def test_refusal_of_a_token_is_a_subclass_of_invalid_token(self, kind):
        assert issubclass(kind, InvalidToken)

    def test_server_side_error_is_not_a_subclass_of_invalid_token(self):
        # If a server-side error were an InvalidToken, the client would get a 401 instead of a 503.
        for kind in (ConfigError, KeyUnavailable, UnsealError, AuditError, ClaimsTooLarge):
            assert not issubclass(kind, InvalidToken)


class TestAnError:
    def test_text_of_an_error_with_a_detail_contains_its_code_and_the_detail(self):
        assert str(TokenExpired("past its exp")) == "expired: past its exp"

    def test_text_of_an_error_without_a_detail_is_its_code(self):
        assert str(TokenExpired()) == "expired"

    def test_code_of_one_error_does_not_change_the_code_of_its_class(self):
        assert InvalidToken("no key decrypts the token", code="decrypt_failed").code == "decrypt_failed"
        assert InvalidToken().code == "invalid"

    def test_config_error_has_the_name_of_the_setting(self):
        assert ConfigError("bad", setting="LIFETIME").setting == "LIFETIME"

    def test_pickled_error_keeps_its_detail_its_code_and_its_setting(self):
        # Parallel test runners and task queues pickle errors.
        error = pickle.loads(pickle.dumps(ConfigError("bad", setting="LIFETIME")))

        assert (error.detail, error.code, error.setting) == ("bad", "config", "LIFETIME")
