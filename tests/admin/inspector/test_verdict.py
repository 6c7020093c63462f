"""The verdict of the inspector: the outcome, the reason in words, and what the token says."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from jwcrypto.jwk import JWK

from instaccess.admin.inspector.pasted import extract_token
from instaccess.admin.inspector.verdict import MAX_PASTED, Inspection, Kind, Outcome
from instaccess.audit import revocation, row_hmac, rows
from instaccess.keys import lifecycle
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.trust import denylist
from tests.admin.inspector.helpers import codes, good_claims, look, times
from tests.support.answers import signed_inside
from tests.support.tokens import b64, header_of, respellings, with_header

pytestmark = pytest.mark.django_db


def claim(found: Inspection, name: str) -> Any:
    return next(item for item in found.claims if item.name == name)


class TestAGoodToken:
    def test_is_accepted_by_the_gateway(self, token):
        found = look(token)

        assert codes(found) == ("ACCEPTED", "")
        assert found.kind is Kind.ENCRYPTED
        assert "gateway lets this token through" in str(found.explanation.meaning)
        assert found.alarms == ()
        assert found.notes == ()

    def test_says_what_it_says_and_in_words(self, issue, user):
        row, token = issue(minutes_ago=12)
        found = look(token)

        assert found.authentic
        assert claim(found, "sub").value == row.user_uuid
        assert claim(found, "iat").words == f"issued {row.issued_at:%Y-%m-%d %H:%M:%S} UTC, 12 minutes ago"
        assert claim(found, "exp").words.startswith(f"expires {row.expires_at:%Y-%m-%d %H:%M:%S} UTC, in 4")
        assert found.jti == str(row.jti)

    def test_says_which_keys_it_is_under(self, token):
        ring = keys_ring.current_ring()
        outer, inner = look(token).layers

        assert (outer.key.kid, outer.key.status, outer.authentic) == (ring.encryption_key().kid, "current", True)
        assert (inner.key.kid, inner.key.status, inner.authentic) == (ring.signing_key().kid, "current", True)
        assert [item.name for item in outer.header] == ["alg", "enc", "cty", "kid"]
        assert [item.name for item in inner.header] == ["typ", "alg", "kid"]
        assert inner.key.words.startswith("current since 20")

    def test_under_keys_that_have_retired_says_so(self, token):
        for use in Key.Use:
            lifecycle.rotate(use, force=True)
        found = look(token)

        assert codes(found) == ("ACCEPTED", "")
        assert {layer.key.status for layer in found.layers} == {"past"}

    def test_agrees_with_its_audit_row(self, issue):
        row, token = issue()
        audit = look(token).audit

        assert audit.row == row
        assert audit.differences == ()
        assert audit.evidence is row_hmac.HmacStatus.AUTHENTIC

    def test_of_a_masquerade_agrees_with_its_row_too(self, issue, user):
        other = get_user_model().objects.create_user("grace")
        found = look(issue(user=other, real_user=user)[1])

        assert found.audit.differences == ()
        assert "masquerades" in claim(found, "masq_sub").words

    def test_of_a_service_user_agrees_with_its_row_too(self, issue):
        assert look(issue(service=True)[1]).audit.differences == ()

    def test_in_the_shape_of_canvas_without_kid_shows_which_keys_fitted(self, make):
        found = look(make.encrypted(make.signed(good_claims(), kid=...), kid=..., cty=...))

        assert [layer.key.kid for layer in found.layers] == [make.encryption_kid, make.signing_kid]

    def test_is_found_in_what_was_copied_around_it_and_that_is_said(self, token):
        wrapped = "\n".join(token[place : place + 64] for place in range(0, len(token), 64))

        for text in (f"Authorization: Bearer {wrapped}", json.dumps({"token": token}), f"'{token}'"):
            found = look(text)
            assert codes(found) == ("ACCEPTED", "")
            assert "were removed" in found.notes[0]

    def test_of_an_inactive_user_is_accepted_by_the_gateway_and_services_will_refuse_it(self, token, user):
        user.is_active = False
        user.save()
        found = look(token)

        assert codes(found) == ("ACCEPTED", "")
        assert any("unknown_user" in alarm for alarm in found.alarms)


class TestASignedToken:
    @pytest.fixture
    def signed(self, token):
        return signed_inside(token)

    def test_is_accepted_by_a_service_and_g22_refused_by_the_gateway_from_outside(self, signed):
        found = look(signed)

        assert (codes(found), found.kind) == (("ACCEPTED", ""), Kind.SIGNED)
        assert "gateway refuses it from outside" in found.notes[-1]

    def test_of_an_inactive_user_is_refused(self, signed, user):
        user.is_active = False
        user.save()

        assert codes(look(signed)) == ("REFUSED", "unknown_user")

    def test_of_an_inactive_masquerader_is_refused(self, issue, user):
        other = get_user_model().objects.create_user("grace")
        signed = signed_inside(issue(user=other, real_user=user)[1])
        user.is_active = False
        user.save()

        assert codes(look(signed)) == ("REFUSED", "unknown_masquerader")

    def test_of_another_account_is_refused(self, signed, settings):
        settings.INSTACCESS = {"ACCOUNT_UUID": "mine"}

        assert codes(look(signed)) == ("REFUSED", "wrong_account")

    def test_calls_no_hook_that_may_make_users(self, signed, settings):
        settings.INSTACCESS = {"USER_HOOK": "tests.admin.inspector.test_verdict.failing_hook"}

        assert codes(look(signed)) == ("ACCEPTED", "")

    def test_that_is_revoked_is_accepted_by_services_and_that_is_alarming(self, signed):
        revocation.revoke(rows.revocable_tokens(), reason="laptop lost")
        denylist.clear_cache()
        found = look(signed)

        assert codes(found) == ("ACCEPTED", "")
        assert any("The token is revoked" in alarm for alarm in found.alarms)

    def test_forged_shows_what_it_claims_as_not_authenticated(self, signed):
        header, _, signature = signed.split(".")
        found = look(f"{header}.{b64(json.dumps(good_claims(sub='somebody')).encode())}.{signature}")

        assert codes(found) == ("REFUSED", "bad_signature")
        assert not found.authentic
        assert not found.layers[0].authentic
        assert found.jti == ""
        assert claim(found, "sub").value == "somebody"


def failing_hook(claims: Any) -> Any:
    raise AssertionError("called")


class TestARefusal:
    def test_of_an_expired_token_says_since_when_and_shows_all(self, issue):
        row, token = issue(minutes_ago=63)
        found = look(token)

        assert codes(found) == ("REFUSED", "expired")
        assert found.authentic
        assert claim(found, "exp").words == f"expired {row.expires_at:%Y-%m-%d %H:%M:%S} UTC, 3 minutes ago"
        assert found.audit.row == row
        assert found.audit.differences == ()

    def test_of_a_revoked_token_says_by_whom_and_why(self, issue, user):
        token = issue()[1]
        revocation.revoke(rows.revocable_tokens(), reason="laptop lost", by=user)
        denylist.clear_cache()
        found = look(token)

        assert codes(found) == ("REFUSED", "revoked")
        assert (found.audit.row.revoked_by, found.audit.row.revocation_reason) == ("ada", "laptop lost")
        assert found.audit.revoked.startswith("20")
        assert found.alarms == ()

    def test_of_a_revoked_token_is_as_young_as_the_gateways_own(self, issue):
        token = issue()[1]
        assert codes(look(token)) == ("ACCEPTED", "")
        revocation.revoke(rows.revocable_tokens(), reason="laptop lost")
        found = look(token)

        # The deny list of this process is two seconds old at most, and so is a gateway's.
        assert codes(found) == ("ACCEPTED", "")
        assert any("within five seconds" in alarm for alarm in found.alarms)

    def test_of_a_token_from_the_future_says_so(self, make):
        assert codes(look(make.token(**times(3600)))) == ("REFUSED", "not_yet")

    def test_of_one_that_is_not_valid_before_says_when_it_is(self, make):
        found = look(make.token(**times(0), nbf=int(time.time()) + 600))

        assert codes(found) == ("REFUSED", "not_yet")
        assert claim(found, "nbf").words.endswith("in 9 minutes")

    @pytest.mark.parametrize("place", range(3))
    def test_g4_of_a_respelled_token_names_the_spelling(self, token, place):
        respelled = [text for text in respellings(token) if extract_token(text) != token]

        assert codes(look(respelled[place])) == ("REFUSED", "malformed")

    @pytest.mark.parametrize("alg", ["none", "HS256", "PS256"])
    def test_g7_of_a_signed_token_with_another_algorithm_shows_it_as_not_authenticated(self, token, alg):
        signed = signed_inside(token)
        found = look(with_header(signed, header_of(signed) | {"alg": alg}))

        assert codes(found) == ("REFUSED", "wrong_alg")
        assert found.layers[0].header[1].value == alg
        assert not found.layers[0].authentic

    def test_g2_of_a_zip_shows_the_header_but_no_member_of_a_stranger(self, token):
        jwk = dict(JWK.generate(kty="RSA", size=2048))
        found = look(with_header(token, header_of(token) | {"zip": "DEF", "jwk": jwk}))

        assert codes(found) == ("REFUSED", "bad_header")
        outer = found.layers[0]
        assert {item.name: item.value for item in outer.header}["zip"] == "not shown"
        assert not outer.authentic
        assert jwk["d"] not in repr(found)

    def test_g19_of_one_over_8_kib_shows_nothing_of_it(self, token):
        found = look(token + "A" * 8192)

        assert codes(found) == ("REFUSED", "too_long")
        assert found.layers == ()

    def test_of_a_text_beyond_all_length_looks_at_nothing(self, monkeypatch):
        monkeypatch.setattr("instaccess.admin.inspector.pasted.extract_token", None)

        assert codes(look("a" * (MAX_PASTED + 1))) == ("REFUSED", "too_long")

    def test_g6_of_a_damaged_one_shows_its_header_only(self, token):
        head, key, *rest = token.split(".")
        found = look(".".join([head, key[::-1], *rest]))

        assert found.code in {"decrypt_failed", "malformed"}
        assert [layer.authentic for layer in found.layers] == [False]
        assert found.claims == ()

    def test_of_what_is_no_signed_token_inside_shows_nothing_of_it(self, make):
        found = look(make.encrypted("this is a secret"))

        assert codes(found) == ("REFUSED", "malformed")
        assert found.layers[0].authentic
        assert "this is a secret" not in repr(found)

    def test_of_another_issuers_claims_under_our_keys_shows_them(self, make):
        found = look(make.token(**times(0), iss="https://elsewhere.example"))

        assert codes(found) == ("REFUSED", "foreign_issuer")
        assert found.authentic


class TestWhatIsNoToken:
    def test_an_access_token_is_told_where_to_be_traded_and_is_not_looked_up(
        self, access_token, django_assert_num_queries
    ):
        with django_assert_num_queries(0):
            found = look(access_token.token)

        assert codes(found) == ("NOT_OURS", "other_bearer")
        assert "POST /api/v1/inst_access_tokens" in str(found.explanation.advice)
        assert access_token.token not in repr(found)

    def test_a_token_of_another_issuer_names_the_issuer_and_no_more(self, make):
        found = look(make.signed(good_claims(iss="https://idp.example", secret="xyzzy")))

        assert codes(found) == ("NOT_OURS", "foreign_issuer")
        assert found.kind is Kind.FOREIGN
        assert "https://idp.example" in found.detail
        assert "xyzzy" not in repr(found)

    @pytest.mark.parametrize(
        "text", ["a.b.c", "e30.e30.e30", "....x", "a.b", "{}", "\x00", "é", "💥" * 50, "." * 4, ".."]
    )
    def test_nonsense_is_said_to_be_none_or_refused(self, text):
        assert look(text).outcome in {Outcome.NOT_OURS, Outcome.REFUSED}

    @pytest.mark.parametrize("text", ["", "  \n", '""', "Bearer "])
    def test_nothing_is_nothing(self, text):
        assert codes(look(text))[0] == "NOT_OURS"

    def test_json_serialization_is_none(self, token):
        head, key, nonce, text, tag = token.split(".")
        document = {"protected": head, "encrypted_key": key, "iv": nonce, "ciphertext": text, "tag": tag}

        assert codes(look(json.dumps(document))) == ("NOT_OURS", "other_bearer")
