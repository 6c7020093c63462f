"""Tests of the verdict of the inspector: the outcome, the reason, and the claims."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings
from jwcrypto.jwk import JWK

from instaccess import users
from instaccess.admin.inspector.pasted import extract_token
from instaccess.admin.inspector.verdict import MAX_PASTED, Inspection, Kind, Outcome
from instaccess.audit import revocation, row_hmac, rows
from instaccess.keys import keks_for_revocation, lifecycle
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.trust import denylist
from tests.admin.inspector.helpers import codes, good_claims, inspect_text, times
from tests.support.answers import signed_inside
from tests.support.tokens import b64, canvas_claims, header_of, non_canonical_forms, signed_by_pyjwt, with_header

pytestmark = pytest.mark.django_db


def claim(inspection: Inspection, name: str) -> Any:
    return next(item for item in inspection.claims if item.name == name)


class TestTheVerdictOnAValidToken:
    def test_inspector_accepts_a_valid_encrypted_token(self, token):
        inspection = inspect_text(token)

        assert codes(inspection) == ("ACCEPTED", "")
        assert inspection.kind is Kind.ENCRYPTED
        assert "gateway accepts this token" in str(inspection.explanation.meaning)
        assert inspection.alarms == ()
        assert inspection.notes == ()

    def test_inspector_describes_the_claims_of_a_valid_token(self, issue, user):
        row, token = issue(minutes_ago=12)
        inspection = inspect_text(token)

        assert inspection.authentic
        assert claim(inspection, "sub").value == row.user_uuid
        assert claim(inspection, "iat").words == f"issued {row.issued_at:%Y-%m-%d %H:%M:%S} UTC, 12 minutes ago"
        assert claim(inspection, "exp").words.startswith(f"expires {row.expires_at:%Y-%m-%d %H:%M:%S} UTC, in 4")
        assert inspection.jti == str(row.jti)

    def test_inspector_names_the_keys_of_a_valid_token_and_their_status(self, token):
        ring = keys_ring.current_ring()
        outer, inner = inspect_text(token).layers

        assert (outer.key.kid, outer.key.status, outer.authentic) == (ring.encryption_key().kid, "current", True)
        assert (inner.key.kid, inner.key.status, inner.authentic) == (ring.signing_key().kid, "current", True)
        assert [item.name for item in outer.header] == ["alg", "enc", "cty", "kid"]
        assert [item.name for item in inner.header] == ["typ", "alg", "kid"]
        assert inner.key.words.startswith("current since 20")

    def test_inspector_describes_retired_keys_as_past(self, token):
        for use in Key.Use:
            lifecycle.rotate(use, force=True)
        inspection = inspect_text(token)

        assert codes(inspection) == ("ACCEPTED", "")
        assert {layer.key.status for layer in inspection.layers} == {"past"}

    def test_inspector_finds_no_difference_between_a_valid_token_and_its_audit_row(self, issue):
        row, token = issue()
        audit = inspect_text(token).audit

        assert audit.row == row
        assert audit.differences == ()
        assert audit.evidence is row_hmac.HmacStatus.AUTHENTIC

    def test_inspector_finds_no_difference_between_a_masquerade_token_and_its_audit_row(self, issue, user):
        other = get_user_model().objects.create_user("grace")
        inspection = inspect_text(issue(user=other, real_user=user)[1])

        assert inspection.audit.differences == ()
        assert "masquerades" in claim(inspection, "masq_sub").words

    def test_inspector_finds_no_difference_between_a_service_users_token_and_its_audit_row(self, issue):
        assert inspect_text(issue(service=True)[1]).audit.differences == ()

    def test_c12_inspector_accepts_a_token_of_canvas_and_shows_an_integer_claim_unchanged(self, make, user):
        payload = canvas_claims(
            int(time.time()), iss="https://canvas.example", sub=users.user_uuid(user), masq_sub=...
        )
        token = make.encrypted(signed_by_pyjwt(payload, make.signing), kid=..., cty=...)
        with override_settings(INSTACCESS={"ACCEPTED_ISSUERS": ["https://canvas.example"]}):
            inspection = inspect_text(token)

        assert codes(inspection) == ("ACCEPTED", "")
        assert claim(inspection, "client_id").value == "10000000000107"
        assert not any("unusable_client" in alarm for alarm in inspection.alarms)
        assert codes(inspect_text(token)) == ("REFUSED", "foreign_issuer")

    def test_c15_inspector_warns_that_services_refuse_a_token_of_a_deleted_application(self, issue, application):
        token = issue(service=True)[1]
        application.delete()

        assert any("unusable_client" in alarm for alarm in inspect_text(token).alarms)
        assert codes(inspect_text(signed_inside(token))) == ("REFUSED", "unusable_client")

    def test_inspector_names_the_matching_keys_of_a_token_without_kid(self, make):
        inspection = inspect_text(make.encrypted(make.signed(good_claims(), kid=...), kid=..., cty=...))

        assert [layer.key.kid for layer in inspection.layers] == [make.encryption_kid, make.signing_kid]

    def test_inspector_notes_that_text_around_the_token_was_removed(self, token):
        wrapped = "\n".join(token[place : place + 64] for place in range(0, len(token), 64))

        for text in (f"Authorization: Bearer {wrapped}", json.dumps({"token": token}), f"'{token}'"):
            inspection = inspect_text(text)
            assert codes(inspection) == ("ACCEPTED", "")
            assert "were removed" in inspection.notes[0]

    def test_inspector_warns_that_services_refuse_an_accepted_token_if_the_user_is_inactive(self, token, user):
        user.is_active = False
        user.save()
        inspection = inspect_text(token)

        assert codes(inspection) == ("ACCEPTED", "")
        assert any("unknown_user" in alarm for alarm in inspection.alarms)


class TestTheVerdictOnASignedToken:
    @pytest.fixture
    def signed(self, token):
        return signed_inside(token)

    def test_inspector_accepts_a_signed_token_and_notes_that_gateways_refuse_signed_tokens(self, signed):
        inspection = inspect_text(signed)

        assert (codes(inspection), inspection.kind) == (("ACCEPTED", ""), Kind.SIGNED)
        assert "gateway refuses signed tokens from clients" in inspection.notes[-1]

    def test_inspector_refuses_a_signed_token_of_an_inactive_user(self, signed, user):
        user.is_active = False
        user.save()

        assert codes(inspect_text(signed)) == ("REFUSED", "unknown_user")

    def test_inspector_refuses_a_signed_token_of_an_inactive_real_user(self, issue, user):
        other = get_user_model().objects.create_user("grace")
        signed = signed_inside(issue(user=other, real_user=user)[1])
        user.is_active = False
        user.save()

        assert codes(inspect_text(signed)) == ("REFUSED", "unknown_masquerader")

    def test_inspector_refuses_a_signed_token_of_another_account(self, signed, settings):
        settings.INSTACCESS = {"ACCOUNT_UUID": "mine"}

        assert codes(inspect_text(signed)) == ("REFUSED", "wrong_account")

    def test_inspector_does_not_call_the_user_hook(self, signed, settings):
        settings.INSTACCESS = {"USER_HOOK": "tests.admin.inspector.test_verdict.failing_hook"}

        assert codes(inspect_text(signed)) == ("ACCEPTED", "")

    def test_inspector_warns_that_services_accept_a_revoked_signed_token(self, signed):
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost")
        denylist.clear_cache()
        inspection = inspect_text(signed)

        assert codes(inspection) == ("ACCEPTED", "")
        assert any("The token is revoked" in alarm for alarm in inspection.alarms)

    def test_inspector_shows_the_claims_of_a_forged_token_as_not_authenticated(self, signed):
        header, _, signature = signed.split(".")
        inspection = inspect_text(f"{header}.{b64(json.dumps(good_claims(sub='somebody')).encode())}.{signature}")

        assert codes(inspection) == ("REFUSED", "bad_signature")
        assert not inspection.authentic
        assert not inspection.layers[0].authentic
        assert inspection.jti == ""
        assert claim(inspection, "sub").value == "somebody"


def failing_hook(claims: Any) -> Any:
    raise AssertionError("called")


class TestTheVerdictOnARefusedToken:
    def test_inspector_shows_how_long_ago_a_token_expired(self, issue):
        row, token = issue(minutes_ago=63)
        inspection = inspect_text(token)

        assert codes(inspection) == ("REFUSED", "expired")
        assert inspection.authentic
        assert claim(inspection, "exp").words == f"expired {row.expires_at:%Y-%m-%d %H:%M:%S} UTC, 3 minutes ago"
        assert inspection.audit.row == row
        assert inspection.audit.differences == ()

    def test_inspector_shows_the_user_and_the_reason_of_a_revocation(self, issue, user):
        token = issue()[1]
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost", by=user)
        denylist.clear_cache()
        inspection = inspect_text(token)

        assert codes(inspection) == ("REFUSED", "revoked")
        assert (inspection.audit.row.revoked_by, inspection.audit.row.revocation_reason) == ("ada", "laptop lost")
        assert inspection.audit.revoked.startswith("20")
        assert inspection.alarms == ()

    def test_inspector_uses_a_cached_deny_list_as_the_gateway_does(self, issue):
        token = issue()[1]
        assert codes(inspect_text(token)) == ("ACCEPTED", "")
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost")
        inspection = inspect_text(token)

        # As in a gateway, the cached deny list is up to two seconds old, so the list does not contain the token yet.
        assert codes(inspection) == ("ACCEPTED", "")
        assert any("within five seconds" in alarm for alarm in inspection.alarms)

    def test_inspector_refuses_a_token_that_was_issued_in_the_future(self, make):
        assert codes(inspect_text(make.token(**times(3600)))) == ("REFUSED", "not_yet")

    def test_inspector_shows_the_time_at_which_a_token_becomes_valid(self, make):
        inspection = inspect_text(make.token(**times(0), nbf=int(time.time()) + 600))

        assert codes(inspection) == ("REFUSED", "not_yet")
        assert claim(inspection, "nbf").words.endswith("in 9 minutes")

    @pytest.mark.parametrize("place", range(3))
    def test_g4_inspector_refuses_a_non_canonical_token_as_malformed(self, token, place):
        forms = [text for text in non_canonical_forms(token) if extract_token(text) != token]

        assert codes(inspect_text(forms[place])) == ("REFUSED", "malformed")

    @pytest.mark.parametrize("alg", ["none", "HS256", "PS256"])
    def test_g7_inspector_shows_a_signed_token_with_an_algorithm_other_than_rs256_as_not_authenticated(
        self, token, alg
    ):
        signed = signed_inside(token)
        inspection = inspect_text(with_header(signed, header_of(signed) | {"alg": alg}))

        assert codes(inspection) == ("REFUSED", "wrong_alg")
        assert inspection.layers[0].header[1].value == alg
        assert not inspection.layers[0].authentic

    def test_g2_inspector_hides_unknown_header_members_of_a_compressed_token(self, token):
        jwk = dict(JWK.generate(kty="RSA", size=2048))
        inspection = inspect_text(with_header(token, header_of(token) | {"zip": "DEF", "jwk": jwk}))

        assert codes(inspection) == ("REFUSED", "bad_header")
        outer = inspection.layers[0]
        assert {item.name: item.value for item in outer.header}["zip"] == "not shown"
        assert not outer.authentic
        assert jwk["d"] not in repr(inspection)

    def test_g19_inspector_shows_no_part_of_a_token_over_8_kib(self, token):
        inspection = inspect_text(token + "A" * 8192)

        assert codes(inspection) == ("REFUSED", "too_long")
        assert inspection.layers == ()

    def test_inspector_does_not_parse_text_over_the_maximum_length(self, monkeypatch):
        monkeypatch.setattr("instaccess.admin.inspector.pasted.extract_token", None)

        assert codes(inspect_text("a" * (MAX_PASTED + 1))) == ("REFUSED", "too_long")

    def test_g6_inspector_shows_only_the_header_of_a_damaged_token(self, token):
        head, key, *rest = token.split(".")
        inspection = inspect_text(".".join([head, key[::-1], *rest]))

        assert inspection.code in {"decrypt_failed", "malformed"}
        assert [layer.authentic for layer in inspection.layers] == [False]
        assert inspection.claims == ()

    def test_inspector_shows_no_claims_if_the_encrypted_content_is_not_a_signed_token(self, make):
        inspection = inspect_text(make.encrypted("this is a secret"))

        assert codes(inspection) == ("REFUSED", "malformed")
        assert inspection.layers[0].authentic
        assert "this is a secret" not in repr(inspection)

    def test_inspector_refuses_a_token_of_another_issuer_that_is_signed_with_a_known_key(self, make):
        inspection = inspect_text(make.token(**times(0), iss="https://elsewhere.example"))

        assert codes(inspection) == ("REFUSED", "foreign_issuer")
        assert inspection.authentic


class TestTextThatIsNotAToken:
    def test_inspector_explains_without_a_database_query_how_to_exchange_an_access_token(
        self, access_token, django_assert_num_queries
    ):
        with django_assert_num_queries(0):
            inspection = inspect_text(access_token.token)

        assert codes(inspection) == ("NOT_OURS", "other_bearer")
        assert "POST /api/v1/inst_access_tokens" in str(inspection.explanation.advice)
        assert access_token.token not in repr(inspection)

    def test_inspector_names_only_the_issuer_of_a_foreign_token(self, make):
        inspection = inspect_text(make.signed(good_claims(iss="https://idp.example", secret="xyzzy")))

        assert codes(inspection) == ("NOT_OURS", "foreign_issuer")
        assert inspection.kind is Kind.FOREIGN
        assert "https://idp.example" in inspection.detail
        assert "xyzzy" not in repr(inspection)

    @pytest.mark.parametrize(
        "text", ["a.b.c", "e30.e30.e30", "....x", "a.b", "{}", "\x00", "é", "💥" * 50, "." * 4, ".."]
    )
    def test_inspector_does_not_accept_text_that_is_not_a_token(self, text):
        assert inspect_text(text).outcome in {Outcome.NOT_OURS, Outcome.REFUSED}

    @pytest.mark.parametrize("text", ["", "  \n", '""', "Bearer "])
    def test_inspector_reports_empty_text_as_not_a_token(self, text):
        assert codes(inspect_text(text))[0] == "NOT_OURS"

    def test_inspector_reports_a_json_serialization_as_not_a_token(self, token):
        head, key, nonce, text, tag = token.split(".")
        document = {"protected": head, "encrypted_key": key, "iv": nonce, "ciphertext": text, "tag": tag}

        assert codes(inspect_text(json.dumps(document))) == ("NOT_OURS", "other_bearer")
