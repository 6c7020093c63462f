"""Tests of the claims that the issuer writes (docs/wire-contract.md §2), and of the claims that a reader accepts."""

from __future__ import annotations

import dataclasses
import inspect
import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto.jwk import JWK

from instaccess.exceptions import ClaimsTooLarge, ForeignToken, InvalidToken
from instaccess.tokens import MAX_LIFETIME, PrivateKey, compact, identifiers, is_canonical_uuid, jose
from instaccess.tokens.claims import MAX_PAYLOAD_BYTES, RESERVED, Claims
from tests.support.tokens import canvas_claims, signed_by_pyjwt
from tests.tokens.helpers import ISSUER, NOW, payload, read, refusal

NGINX_HEADER_BYTES = 4096

ALWAYS = {
    "issuer": ISSUER,
    "user_uuid": "6f1c2f5e-2e0e-4a4c-9a52-1a6c2a1f0d11",
    "account_uuid": "0b8f5a1e-7f2d-4c1b-8f39-3d0c5b6a7e22",
    "canvas_domain": "canvas.example.edu",
}


def new(**values: Any) -> Claims:
    return Claims.new(**({"now": NOW} | ALWAYS | values))


class TestThePayloadOfClaims:
    def test_minimal_payload_has_exactly_the_required_claims_in_the_order_of_the_wire_contract(self):
        claims = new(user_global_id="42")

        assert list(claims.to_payload().items()) == [
            ("iss", "instructure:inst_access"),
            ("jti", claims.jti),
            ("iat", NOW),
            ("exp", NOW + 3600),
            ("sub", ALWAYS["user_uuid"]),
            ("acct", ALWAYS["account_uuid"]),
            ("canvas_domain", "canvas.example.edu"),
            ("debug_user_global_id", "42"),
        ]

    def test_complete_payload_has_all_claims_in_the_order_of_the_wire_contract(self):
        claims = new(
            user_global_id="42",
            real_user_global_id="7",
            masquerading_user_uuid="real-user",
            masquerading_user_shard_id=1,
            region="eu-west-1",
            shard_id=3,
            client_id="client",
            instructure_service=True,
            extra={"department": "physics"},
        )

        assert list(claims.to_payload().items())[4:] == [
            ("sub", ALWAYS["user_uuid"]),
            ("acct", ALWAYS["account_uuid"]),
            ("canvas_domain", "canvas.example.edu"),
            ("masq_sub", "real-user"),
            ("masq_shard", 1),
            ("debug_user_global_id", "42"),
            ("debug_masq_global_id", "7"),
            ("region", "eu-west-1"),
            ("canvas_shard_id", 3),
            ("client_id", "client"),
            ("instructure_service", True),
            ("department", "physics"),
        ]

    def test_payload_omits_optional_claims_that_are_none_or_false(self):
        text = new().to_json()

        assert set(json.loads(text)) == {"iss", "jti", "iat", "exp", "sub", "acct", "canvas_domain"}
        assert b"null" not in text
        assert b"false" not in text

    def test_payload_contains_the_time_0_and_the_shard_0(self):
        payload = new(now=0, masquerading_user_shard_id=0, shard_id=0).to_payload()

        assert (payload["iat"], payload["masq_shard"], payload["canvas_shard_id"]) == (0, 0, 0)

    def test_payload_of_a_token_is_compact_json_in_utf_8(self):
        text = new(extra={"name": "Åsa"}).to_json()

        assert b": " not in text
        assert b", " not in text
        assert "Åsa".encode() in text

    def test_times_of_a_token_are_integers_even_if_the_clock_has_fractions(self):
        claims = new(now=NOW + 0.999, lifetime=60)

        assert (claims.issued_at, claims.expires_at) == (NOW, NOW + 60)
        assert type(claims.to_payload()["exp"]) is int

    def test_jti_of_each_token_is_a_random_uuid(self):
        jtis = {new().jti for _ in range(100)}

        assert len(jtis) == 100
        assert {uuid.UUID(jti).version for jti in jtis} == {4}

    def test_claims_are_immutable(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            new().user_uuid = "eve"


class TestTheParametersOfNew:
    def test_parameters_of_claims_new_match_the_fields_of_claims(self):
        fields = {field.name for field in dataclasses.fields(Claims)}

        assert set(inspect.signature(Claims.new).parameters) == fields - {"jti", "issued_at", "expires_at"} | {
            "now",
            "lifetime",
        }


class TestIsCanonicalUuid:
    def test_is_canonical_uuid_accepts_a_uuid_in_lower_case_with_hyphens(self):
        assert is_canonical_uuid("6f1c2f5e-2e0e-4a4c-9a52-1a6c2a1f0d11")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "ada",
            "6F1C2F5E-2E0E-4A4C-9A52-1A6C2A1F0D11",
            "6f1c2f5e2e0e4a4c9a521a6c2a1f0d11",
            "{6f1c2f5e-2e0e-4a4c-9a52-1a6c2a1f0d11}",
            "urn:uuid:6f1c2f5e-2e0e-4a4c-9a52-1a6c2a1f0d11",
            " 6f1c2f5e-2e0e-4a4c-9a52-1a6c2a1f0d11",
        ],
    )
    def test_is_canonical_uuid_refuses_other_formats_of_a_uuid_and_other_strings(self, text):
        assert not is_canonical_uuid(text)


class TestTheLifetimeOfAToken:
    @pytest.mark.parametrize("lifetime", [1, 60, MAX_LIFETIME])
    def test_claims_with_a_lifetime_of_one_second_to_one_hour_are_accepted(self, lifetime):
        assert new(lifetime=lifetime).expires_at == NOW + lifetime

    @pytest.mark.parametrize("lifetime", [0, -1, MAX_LIFETIME + 1, 10**400])
    def test_claims_with_a_lifetime_out_of_range_are_refused(self, lifetime):
        with pytest.raises(ValueError, match="lifetime"):
            new(lifetime=lifetime)


class TestExtraClaims:
    @pytest.mark.parametrize("name", sorted(RESERVED))
    def test_p16_extra_claims_cannot_set_a_reserved_claim(self, name):
        with_extra = new(extra={name: "forged", "mine": 1}).to_payload()

        assert with_extra.get(name) != "forged"
        assert with_extra["mine"] == 1

    @pytest.mark.parametrize("name", ["exp", "iss", "jti", "masq_sub"])
    def test_p16_replacing_the_extra_claims_cannot_set_a_reserved_claim(self, name):
        claims = dataclasses.replace(new(), extra={name: "forged"})

        assert claims.to_payload().get(name) != "forged"

    def test_p16_claims_of_the_wire_contract_and_aud_and_nbf_are_reserved(self):
        assert {
            "iss", "jti", "iat", "exp", "sub", "acct", "canvas_domain", "masq_sub", "masq_shard",
            "debug_user_global_id", "debug_masq_global_id", "region", "canvas_shard_id", "client_id",
            "instructure_service", "aud", "nbf",
        } == RESERVED  # fmt: skip

    def test_p16_extra_claims_of_10_kilobytes_are_refused(self):
        with pytest.raises(ClaimsTooLarge, match="CLAIMS_HOOK") as error:
            new(extra={"groups": "x" * 10_240}).to_json()

        assert error.value.code == "claims_too_large"

    def test_p16_payload_is_limited_to_2048_bytes(self):
        room = MAX_PAYLOAD_BYTES - len(new(extra={"x": ""}).to_json())

        assert len(new(extra={"x": "x" * room}).to_json()) == 2048
        with pytest.raises(ClaimsTooLarge):
            new(extra={"x": "x" * (room + 1)}).to_json()

    def test_p16_payload_is_measured_in_bytes_and_not_in_characters(self):
        with pytest.raises(ClaimsTooLarge):
            new(extra={"x": "\N{KEY}" * 600}).to_json()

    @pytest.mark.parametrize(
        "value",
        [object(), {1, 2}, b"bytes", float("nan"), float("inf"), "\ud800", {("a", "b"): 1}, uuid.UUID(int=0)],
        ids=["object", "set", "bytes", "nan", "infinity", "lone-surrogate", "tuple-as-name", "uuid"],
    )
    def test_p16_extra_claim_that_is_not_json_is_refused(self, value):
        with pytest.raises(ClaimsTooLarge, match="not JSON") as error:
            new(extra={"x": value}).to_json()

        assert error.value.code == "claims_not_json"

    def test_p16_extra_claim_that_contains_itself_is_refused(self):
        loop: list[Any] = []
        loop.append(loop)

        with pytest.raises(ClaimsTooLarge):
            new(extra={"x": loop}).to_json()

    def test_p16_extra_claim_with_100000_levels_is_refused(self):
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]

        with pytest.raises(ClaimsTooLarge):
            new(extra={"x": deep}).to_json()

    def test_p16_extra_claims_that_nest_deeper_than_readers_accept_are_refused(self):
        def nested(depth: int) -> list[Any]:
            return [nested(depth - 1)] if depth else ["x"]

        # A reader accepts 32 levels. The object that contains all claims is the first level.
        deepest = new(extra={"x": nested(30), "empty": [{}], "text": "[" * 100}).to_json()
        assert compact.json_object(deepest, "claims") == json.loads(deepest)
        with pytest.raises(ClaimsTooLarge, match="nest deeper"):
            new(extra={"x": nested(31)}).to_json()

    def test_p16_depth_of_an_extra_claim_does_not_depend_on_the_preceding_claims(self):
        deep: list[Any] = ["x"]
        for _ in range(31):
            deep = [deep]

        with pytest.raises(ClaimsTooLarge, match="nest deeper"):
            new(extra={"empty": [[], {}, []], "x": deep}).to_json()

    def test_p16_error_does_not_contain_the_values_of_extra_claims(self):
        with pytest.raises(ClaimsTooLarge) as error:
            new(extra={"x": "private-value" * 1000}).to_json()

        assert "private-value" not in str(error.value)


class TestTheIssuerOfAToken:
    @pytest.mark.parametrize(
        "issuer", ["https://other.example", "Instructure:inst_access", "", None, 1, [ISSUER], {}]
    )
    def test_c2_reader_refuses_a_token_of_another_issuer_as_a_foreign_token(self, issuer):
        assert isinstance(refusal(payload(iss=issuer)), ForeignToken)

    def test_c2_reader_refuses_a_token_without_an_issuer_as_a_foreign_token(self):
        assert refusal(payload(iss=...)).code == "foreign_issuer"

    def test_c12_reader_accepts_each_of_several_issuers_and_returns_the_issuer(self):
        for issuer in (ISSUER, "https://canvas.example"):
            claims = Claims.from_payload(payload(iss=issuer), now=NOW, issuers=[ISSUER, "https://canvas.example"])
            assert claims.issuer == issuer

    @pytest.mark.parametrize("iss", ["instructure", ["instructure:inst_access"], {}])
    def test_c2_reader_refuses_a_substring_of_the_issuer_if_the_caller_passes_one_string(self, iss):
        with pytest.raises(ForeignToken):
            Claims.from_payload(payload(iss=iss), now=NOW, issuers=ISSUER)

    def test_reader_checks_the_issuer_before_all_other_claims(self):
        # A foreign token must raise ForeignToken even if other claims are invalid, because another authenticator may
        # accept the token.
        assert isinstance(refusal({"iss": "other", "exp": None}), ForeignToken)


class TestTheClaimsOfCanvas:
    def test_c12_reader_accepts_integer_ids_of_canvas_and_a_token_without_a_domain(self, rsa_pool):
        key = rsa_pool.take("sig")
        members, _ = jose.verify(signed_by_pyjwt(canvas_claims(NOW), key), {"s1": key})

        claims = read(members)

        assert (claims.client_id, claims.instructure_service) == ("10000000000107", True)
        assert (claims.user_global_id, claims.real_user_global_id) == ("10000000000001", "10000000000002")
        assert claims.canvas_domain is None

    @pytest.mark.parametrize("name", ["debug_user_global_id", "debug_masq_global_id", "client_id"])
    @pytest.mark.parametrize("value", [0, 7, 2**63 - 1, "7", "a-client"])
    def test_c12_reader_accepts_an_id_that_is_a_string_or_an_integer(self, name, value):
        assert read(payload(**{name: value})).to_payload()[name] == str(value)

    def test_c12_reader_accepts_an_instructure_service_claim_that_is_false(self):
        assert read(canvas_claims(instructure_service=False)).instructure_service is False

    def test_c12_identifiers_for_the_log_contain_an_integer_client_id_as_a_string(self):
        assert identifiers({"jti": "j", "sub": 7, "client_id": 7}) == {"jti": "j", "client_id": "7"}
        assert identifiers({"client_id": True}) == {}


class TestAMasquerade:
    def test_reader_accepts_a_masquerade_with_a_user_and_a_shard(self):
        claims = read(payload(masq_sub="real", masq_shard=1))

        assert (claims.masquerading_user_uuid, claims.masquerading_user_shard_id) == ("real", 1)

    @pytest.mark.parametrize("shard", [0, 1, 10_000_000_000_001, "shard-7"])
    def test_reader_accepts_a_masquerade_on_any_shard(self, shard):
        claims = read(payload(masq_sub="real", masq_shard=shard))

        assert (claims.masquerading_user_uuid, claims.masquerading_user_shard_id) == ("real", shard)

    @pytest.mark.parametrize("incomplete", [{"masq_sub": "real"}, {"masq_shard": 1}])
    def test_c11_reader_ignores_an_incomplete_masquerade(self, incomplete):
        claims = read(payload(**incomplete))

        assert (claims.masquerading_user_uuid, claims.masquerading_user_shard_id) == (None, None)


class TestUnknownClaims:
    def test_reader_returns_unknown_claims_as_extra(self):
        assert read(payload(department="physics", level=3)).extra == {"department": "physics", "level": 3}

    def test_reader_returns_no_reserved_claim_as_extra(self):
        assert read(payload(nbf=NOW, aud="somebody")).extra == {}


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
shards = st.integers(min_value=1, max_value=2**40) | texts
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def any_claims(draw: st.DrawFn) -> Claims:
    masquerade = draw(st.none() | st.tuples(texts, shards))
    return Claims.new(
        now=draw(st.integers(min_value=0, max_value=2**40)),
        lifetime=draw(st.integers(min_value=1, max_value=MAX_LIFETIME)),
        issuer=draw(texts),
        user_uuid=draw(texts),
        account_uuid=draw(texts),
        canvas_domain=draw(texts),
        masquerading_user_uuid=masquerade and masquerade[0],
        masquerading_user_shard_id=masquerade and masquerade[1],
        user_global_id=draw(st.none() | texts),
        real_user_global_id=draw(st.none() | texts),
        region=draw(st.none() | texts),
        shard_id=draw(st.none() | shards),
        client_id=draw(st.none() | texts),
        instructure_service=draw(st.booleans()),
        extra=draw(st.dictionaries(texts | st.sampled_from(sorted(RESERVED)), json_values, max_size=3)),
    )


class TestArbitraryClaims:
    @given(claims=any_claims())
    def test_reader_returns_the_same_claims_that_were_written(self, claims):
        members = compact.json_object(claims.to_json(), "claims")

        assert Claims.from_payload(members, now=claims.issued_at, issuers=[claims.issuer]) == claims

    @settings(max_examples=300)
    @given(
        changes=st.dictionaries(
            st.sampled_from(sorted(RESERVED)) | texts,
            json_values | st.sampled_from([10**400, float("inf"), float("nan"), -0.0, 2**53, NOW]),
            max_size=4,
        )
    )
    def test_reader_accepts_arbitrary_claims_or_gives_a_reason_code_for_the_refusal(self, changes):
        try:
            claims = read(payload(**changes))
        except InvalidToken as error:
            code = error.code
        else:
            code = "accepted"
            assert 0 < claims.expires_at - claims.issued_at <= MAX_LIFETIME
            assert claims.expires_at > NOW
        assert code not in {"", "invalid"}


@pytest.fixture(scope="module")
def long_key() -> JWK:
    return JWK.generate(kty="RSA", size=4096, use="sig")


class TestTheLongestTokenThatIsAccepted:
    def test_g17_longest_signed_token_fits_into_the_response_headers_of_nginx(self, long_key):
        room = MAX_PAYLOAD_BYTES - len(new(extra={"x": ""}).to_json())
        text = new(extra={"x": "x" * room}).to_json()
        assert len(text) == MAX_PAYLOAD_BYTES

        signed = jose.sign(text, PrivateKey(long_key), kid=long_key.thumbprint())

        # Reserve 400 bytes for the status line, Date, Server, Cache-Control and similar headers.
        assert len(f"Authorization: Bearer {signed}\r\n") < NGINX_HEADER_BYTES - 400

    def test_g17_decrypt_accepts_the_longest_encrypted_token(self, long_key):
        room = MAX_PAYLOAD_BYTES - len(new(extra={"x": ""}).to_json())
        kid = long_key.thumbprint()
        signed = jose.sign(new(extra={"x": "x" * room}).to_json(), PrivateKey(long_key), kid=kid)
        encryption_key = JWK(**{**long_key, "use": "enc"})

        token = jose.encrypt(signed, encryption_key, kid=kid, alg="RSA-OAEP", enc="A128CBC-HS256")

        assert len(token) <= compact.MAX_TOKEN_CHARS
        assert jose.decrypt(token, {kid: PrivateKey(encryption_key)}) == (signed, kid)
