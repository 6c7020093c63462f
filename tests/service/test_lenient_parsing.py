"""Tests that a service recognizes InstAccess tokens in encodings that a strict parser would refuse."""

from __future__ import annotations

import json

import pytest

from tests.service.helpers import is_left_to_next, now
from tests.support.tokens import ISSUER, b64, claims, non_canonical_forms


class TestAnotherEncodingOfAnInstAccessToken:
    def test_service_never_leaves_a_non_canonical_inst_access_token_to_the_next_authenticator(self, service):
        token = service.signed(claims(now()))
        encodings = [text for text in non_canonical_forms(token) if text.count(".") == 2 and text.split() == [text]]

        assert len(encodings) >= 4
        for text in encodings:
            assert not is_left_to_next(f"Bearer {text}"), text

    @pytest.mark.parametrize("white", ["\x85", "\xa0", "\x1c", "\x1d", "\x1e", "\x1f"])
    def test_service_never_leaves_an_inst_access_token_with_white_space_to_the_next_authenticator(
        self, service, white
    ):
        header, payload, signature = service.signed(claims(now())).split(".")
        modified = [
            f"{header}.{payload}.{signature[:20]}{white * 4}{signature[20:]}",
            f"{header}.{payload[:20]}{white * 4}{payload[20:]}.{signature}",
            f"{header[:9]}{white * 4}{header[9:]}.{payload}.{signature}",
        ]

        for text in modified:
            assert not is_left_to_next(f"Bearer {text}")
        assert not is_left_to_next(f"Bearer{white}{header}.{payload}.{signature}")

    def test_service_never_leaves_an_inst_access_token_with_duplicate_claims_to_the_next_authenticator(self, service):
        payload = json.dumps(claims(now()))[:-1]

        for suffix in (', "iss": "them"}', ', "iss": "' + ISSUER + '"}', ', "x": NaN}', ', "x": 1e999}'):
            assert not is_left_to_next("Bearer " + service.signed((payload + suffix).encode()))

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
    def test_service_recognizes_an_inst_access_token_with_claims_in_utf_16_or_utf_32_or_with_a_byte_order_mark(
        self, service, encoding
    ):
        assert not is_left_to_next("Bearer " + service.signed(json.dumps(claims(now())).encode(encoding)))

    @pytest.mark.parametrize("claim", ["aud", "acct", "jti", "sub"])
    def test_service_leaves_a_jwt_with_an_accepted_issuer_only_in_another_claim_to_the_next_authenticator(
        self, service, claim
    ):
        assert is_left_to_next("Bearer " + service.signed(claims(now(), **{"iss": "them", claim: ISSUER})))

    @pytest.mark.parametrize("length", range(4))
    def test_service_recognizes_an_inst_access_token_with_every_length_of_base64_padding(self, service, length):
        payload = json.dumps(claims(now())).encode() + b" " * length

        assert not is_left_to_next("Bearer " + service.signed(payload))

    def test_service_leaves_a_too_deeply_nested_jwt_to_the_next_authenticator(self, service):
        assert is_left_to_next("Bearer a." + b64(b"[" * 100_000) + ".c")
