"""Tests of signed tokens, with independent implementations that verify this package's tokens."""

from __future__ import annotations

import json

import jwt
from joserfc import jwk as joserfc_jwk
from joserfc import jws as joserfc_jws
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from instaccess.tokens import jose
from tests.tokens.handmade import PAYLOAD, header_text, unb64


class TestASignedToken:
    def test_signed_token_has_the_header_members_in_the_order_of_the_wire_contract(self, signed):
        assert header_text(signed) == '{"typ":"JWT","alg":"RS256","kid":"s1"}'

    def test_signed_token_contains_the_exact_payload(self, signed):
        assert unb64(signed.split(".")[1]) == PAYLOAD

    def test_joserfc_verifies_a_signed_token(self, signed, signing_key):
        public = joserfc_jwk.RSAKey.import_key(signing_key.export_public(as_dict=True))

        assert joserfc_jws.deserialize_compact(signed, public, algorithms=["RS256"]).payload == PAYLOAD

    def test_pyjwt_verifies_a_signed_token(self, signed, signing_key):
        claims = jwt.decode(signed, signing_key.export_to_pem(), algorithms=["RS256"])

        assert claims == json.loads(PAYLOAD)

    def test_jwcrypto_verifies_a_signed_token(self, signed, signing_key):
        jws = JWS()
        jws.deserialize(signed)
        jws.verify(JWK.from_json(signing_key.export_public()))

        assert jws.payload == PAYLOAD

    def test_verify_needs_only_the_public_key_to_accept_a_signed_token(self, signed, signing_key):
        public = JWK.from_json(signing_key.export_public())

        assert jose.verify(signed, {"s1": public}) == (json.loads(PAYLOAD), "s1")
