"""Tests of the types and the times that a reader accepts in claims."""

from __future__ import annotations

import json

import pytest

from instaccess.exceptions import InvalidToken, TokenExpired
from instaccess.tokens import AFTERLIFE, MAX_LEEWAY, PrivateKey, jose
from tests.tokens.helpers import NOW, payload, read, refusal

INVALID_TIMES = [
    pytest.param(None, id="null"),
    pytest.param(str(NOW + 60), id="text"),
    pytest.param(True, id="true"),
    pytest.param(False, id="false"),
    pytest.param(1.0, id="1.0"),
    pytest.param(float(NOW + 60), id="a-float-that-is-whole"),
    pytest.param(float("inf"), id="infinity"),
    pytest.param(float("nan"), id="nan"),
    pytest.param(10**400, id="10-to-the-400"),
    pytest.param(2**53, id="2-to-the-53"),
    pytest.param(-1, id="negative"),
    pytest.param([NOW], id="list"),
    pytest.param({}, id="object"),
    pytest.param(..., id="absent"),
]


class TestAnInvalidTimeClaim:
    @pytest.mark.parametrize("value", INVALID_TIMES)
    @pytest.mark.parametrize("name", ["iat", "exp"])
    def test_g8_reader_refuses_an_invalid_iat_or_exp(self, name, value):
        assert refusal(payload(**{name: value})).code == "bad_claim"

    @pytest.mark.parametrize("value", INVALID_TIMES[:-1])
    def test_g8_reader_refuses_an_invalid_nbf(self, value):
        assert refusal(payload(nbf=value)).code == "bad_claim"

    def test_g8_verify_refuses_an_exp_of_1e999(self, rsa_pool):
        # Python parses the valid JSON number 1e999 as infinity, which can't be converted to an integer.
        key = rsa_pool.take("sig")
        text = json.dumps(payload(exp="?")).replace('"?"', "1e999").encode()

        with pytest.raises(InvalidToken) as refused:
            jose.verify(jose.sign(text, PrivateKey(key), kid="s"), {"s": key})

        assert refused.value.code == "malformed"


class TestTheExpiryOfAToken:
    @pytest.mark.parametrize("leeway", [0, 5])
    def test_c9_reader_accepts_a_token_one_second_before_its_exp_plus_the_leeway(self, leeway):
        assert read(payload(), now=NOW + 3600 + leeway - 1, leeway=leeway).user_uuid == "ada"

    @pytest.mark.parametrize("leeway", [0, 5])
    @pytest.mark.parametrize("late", [0, 0.001, 1, 3600, 10**9])
    def test_c9_reader_refuses_a_token_at_and_after_its_exp_plus_the_leeway(self, leeway, late):
        error = refusal(payload(), now=NOW + 3600 + leeway + late, leeway=leeway)

        assert isinstance(error, TokenExpired)
        assert error.code == "expired"

    @pytest.mark.parametrize("lives", [1, 2, 3600])
    def test_g8_reader_accepts_a_lifetime_of_one_second_to_one_hour(self, lives):
        assert read(payload(exp=NOW + lives)).expires_at == NOW + lives

    @pytest.mark.parametrize("lives", [3601, 86_400, 2**52])
    def test_g8_reader_refuses_a_lifetime_of_more_than_an_hour(self, lives):
        assert refusal(payload(iat=NOW, exp=min(NOW + lives, 2**53 - 1))).code == "bad_lifetime"

    @pytest.mark.parametrize("exp", [NOW, NOW - 1, 0])
    def test_g8_reader_refuses_an_exp_that_is_not_after_iat(self, exp):
        assert refusal(payload(exp=exp), now=0).code == "bad_lifetime"

    def test_reader_refuses_a_lifetime_above_the_maximum_that_the_caller_sets(self):
        assert read(payload(exp=NOW + 60), max_lifetime=60).expires_at == NOW + 60
        assert refusal(payload(exp=NOW + 61), max_lifetime=60).code == "bad_lifetime"


class TestTheTimeAfterWhichEveryGatewayRefusesAToken:
    def test_largest_leeway_is_five_minutes(self):
        assert MAX_LEEWAY == 300

    def test_every_gateway_refuses_a_token_six_minutes_after_its_expiry(self):
        # The leeway of a gateway is at most 5 minutes. The clock of a gateway can be up to a minute behind the clock
        # of the issuer.
        assert AFTERLIFE == 360


class TestATokenFromTheFuture:
    def test_reader_accepts_an_iat_up_to_a_minute_in_the_future(self):
        assert read(payload(iat=NOW + 60)).issued_at == NOW + 60

    def test_reader_refuses_an_iat_more_than_a_minute_in_the_future(self):
        assert refusal(payload(iat=NOW + 61)).code == "not_yet"

    def test_reader_accepts_an_iat_in_the_future_within_a_leeway_of_more_than_a_minute(self):
        assert read(payload(iat=NOW + 90), leeway=90).issued_at == NOW + 90
        assert refusal(payload(iat=NOW + 91), leeway=90).code == "not_yet"

    def test_reader_refuses_a_token_before_its_nbf(self):
        assert refusal(payload(nbf=NOW + 1)).code == "not_yet"

    def test_reader_accepts_a_token_at_the_time_of_its_nbf(self):
        assert read(payload(nbf=NOW)).user_uuid == "ada"

    def test_reader_accepts_a_token_before_its_nbf_within_the_leeway(self):
        assert read(payload(nbf=NOW + 5), leeway=5).user_uuid == "ada"
        assert refusal(payload(nbf=NOW + 6), leeway=5).code == "not_yet"


class TestAClaimOfTheWrongType:
    @pytest.mark.parametrize("value", [None, "", 1, True, 1.5, [], ["ada"], {}, ...])
    @pytest.mark.parametrize("name", ["jti", "sub", "acct"])
    def test_reader_refuses_a_required_claim_of_the_wrong_type(self, name, value):
        assert refusal(payload(**{name: value})).code == "bad_claim"

    @pytest.mark.parametrize("value", [None, "", 1, True, [], {}])
    @pytest.mark.parametrize("name", ["canvas_domain", "masq_sub", "region"])
    def test_reader_refuses_an_optional_claim_of_the_wrong_type(self, name, value):
        assert refusal(payload(**{name: value})).code == "bad_claim"

    @pytest.mark.parametrize("value", [None, "", True, False, 1.0, -1, 2**63, 10**400, [], {}])
    @pytest.mark.parametrize("name", ["debug_user_global_id", "debug_masq_global_id", "client_id"])
    def test_c12_reader_refuses_an_id_that_is_neither_a_string_nor_an_integer_of_64_bits(self, name, value):
        assert refusal(payload(**{name: value})).code == "bad_claim"

    @pytest.mark.parametrize("value", [None, "", True, 1.0, [], {}])
    @pytest.mark.parametrize("name", ["masq_shard", "canvas_shard_id"])
    def test_reader_refuses_a_shard_of_the_wrong_type(self, name, value):
        assert refusal(payload(**{name: value})).code == "bad_claim"

    @pytest.mark.parametrize("value", [None, "true", 1, 0, [], {}])
    def test_reader_refuses_an_instructure_service_claim_of_the_wrong_type(self, value):
        assert refusal(payload(instructure_service=value)).code == "bad_claim"

    def test_error_of_a_reader_does_not_contain_the_value_of_a_claim(self):
        assert "secret" not in str(refusal(payload(sub=["secret"])))
