"""What the inspector finds out about a token: the verdict of the wire, the reason in words, and nothing written."""

from __future__ import annotations

import ast
import json
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation
from jwcrypto.jwk import JWK
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

import instaccess
from instaccess import (
    consumer,
    denylist,
    evidence,
    exceptions,
    forward_auth,
    issuer,
    keyring,
    lifecycle,
    revocation,
)
from instaccess.claims import MAX_LIFETIME
from instaccess.inspection import MAX_PASTED, Inspection, Kind, Outcome, inspect
from instaccess.models import IssuedToken, Key
from instaccess.pasted import shown, tidied
from instaccess.reasons import EXPLANATIONS, explain
from tests.support.answers import signed_inside
from tests.support.tokens import Makes, b64, claims, header_of, respellings, with_header

pytestmark = pytest.mark.django_db

VERIFY = "/internal/gateway/verify"
PACKAGE = Path(instaccess.__file__).parent
ORIGIN = issuer.Origin(canvas_domain="canvas.example.edu")


@pytest.fixture(autouse=True)
def fresh_gateway(initial_keys):
    forward_auth.forget()
    yield
    forward_auth.forget()


@pytest.fixture
def issue(user, application):
    """Issues a token; the audit row and the text."""

    def issue_(*, minutes_ago: float = 0, **changes: Any) -> tuple[IssuedToken, str]:
        values = {"user": user, "application": application, "origin": ORIGIN, "now": time.time() - minutes_ago * 60}
        return issuer.issue(**(values | changes))

    return issue_


@pytest.fixture
def token(issue) -> str:
    return issue()[1]


@pytest.fixture
def make() -> Makes:
    """Makes anything under the keys in use, and writes no audit row."""
    ring = keyring.current()
    return Makes(ring.signing_key().private(), ring.encryption_key().private())


def look(text: str, **later: float) -> Inspection:
    return inspect(text, now=time.time() + later.get("seconds", 0))


def codes(found: Inspection) -> tuple[str, str]:
    return found.outcome.name, found.code


def claim(found: Inspection, name: str) -> Any:
    return next(item for item in found.claims if item.name == name)


def good_claims(**changes: Any) -> dict[str, Any]:
    return claims(int(time.time()), **changes)


class TestTidying:
    @pytest.mark.parametrize(
        "pasted",
        [
            "aaa.bbb",
            "  aaa.bbb\r\n",
            "Bearer aaa.bbb",
            "bearer  aaa.bbb",
            "Authorization: Bearer aaa.bbb",
            "authorization:Bearer aaa.bbb",
            "Authorization: aaa.bbb",
            '"aaa.bbb"',
            "'Authorization: Bearer aaa.bbb'",
            'Authorization: "Bearer aaa.bbb"',
            "“aaa.bbb”",
            "`aaa.bbb`",
            '{"token": "aaa.bbb"}',
            '{"token":"aaa.bbb"}\n',
            '{"token": "aa\na.bbb"}',
            "aa\na.b\r\nbb",
            "> aaa\n> .bbb",
            ">> aaa.\n>> bbb\n",
            "aaa.\u00a0bbb",
        ],
    )
    def test_takes_away_what_copying_added(self, pasted):
        assert tidied(pasted) == "aaa.bbb"

    @pytest.mark.parametrize(
        "pasted",
        [
            "aaa.bbb=",
            "aaa.bbb==",
            "aaa!bbb",
            "aaa+bbb/c",
            ".aaa.bbb",
            "aaa.bbb.",
            "aaa\x00bbb",
            "aaa\u200bbbb",
            "{}",
            "",
        ],
    )
    def test_leaves_everything_else_to_be_judged(self, pasted):
        assert tidied(pasted) == pasted

    @pytest.mark.parametrize(
        "pasted", ['{"token": "a", "more": 1}', '{"token": 5}', '{"tokens": "a"}', "[" * 9000, "{" * 9000]
    )
    def test_takes_only_the_issuers_own_answer_for_one(self, pasted):
        assert tidied(pasted) == "".join(pasted.split())

    def test_does_not_make_one_token_of_two(self):
        assert tidied("Bearer aaa, Bearer bbb") == "aaa,Bearerbbb"

    @pytest.mark.parametrize(
        "pasted", [f"Authorization: Bearer {'x' * MAX_PASTED}", "Bearer " * 2800, "\"'" * 9999, "> " * 9999]
    )
    def test_takes_no_time(self, pasted):
        started = time.process_time()
        tidied(pasted)

        assert time.process_time() - started < 1


class TestWhatIsShownOfAValue:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("plain é", "plain é"),
            ("a\x00b", '"a\\u0000b"'),
            ("\u202egnp.exe", '"\\u202egnp.exe"'),
            ("\ud800", '"\\ud800"'),
            (5, "5"),
            (True, "true"),
            (None, "null"),
            ({"a": ["\u202e"]}, '{"a": ["\\u202e"]}'),
            (float("inf"), "Infinity"),
        ],
    )
    def test_hides_nothing_and_reorders_nothing(self, value, text):
        assert shown(value) == text

    def test_is_cut(self):
        assert len(shown("x" * 5000)) < 500
        assert len(shown(10**3000)) < 500


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
        ring = keyring.current()
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
        assert audit.evidence is evidence.Verdict.AUTHENTIC

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
            assert "taken away first" in found.notes[0]

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
        revocation.revoke(revocation.revocable(), reason="laptop lost")
        denylist.forget()
        found = look(signed)

        assert codes(found) == ("ACCEPTED", "")
        assert any("It is revoked" in alarm for alarm in found.alarms)

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
        revocation.revoke(revocation.revocable(), reason="laptop lost", by=user)
        denylist.forget()
        found = look(token)

        assert codes(found) == ("REFUSED", "revoked")
        assert (found.audit.row.revoked_by, found.audit.row.revocation_reason) == ("ada", "laptop lost")
        assert found.audit.revoked.startswith("20")
        assert found.alarms == ()

    def test_of_a_revoked_token_is_as_young_as_the_gateways_own(self, issue):
        token = issue()[1]
        assert codes(look(token)) == ("ACCEPTED", "")
        revocation.revoke(revocation.revocable(), reason="laptop lost")
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
        respelled = [text for text in respellings(token) if tidied(text) != token]

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
        monkeypatch.setattr("instaccess.pasted.tidied", None)

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


def times(ahead: int) -> dict[str, int]:
    now = int(time.time()) + ahead
    return {"iat": now, "exp": now + MAX_LIFETIME}


class TestKeys:
    def test_under_an_unknown_kid_says_where_it_may_come_from(self, rsa_pool):
        found = look(Makes(rsa_pool.take("sig"), rsa_pool.take("enc")).token(**times(0)))

        assert codes(found) == ("REFUSED", "unknown_kid")
        assert "not held here" in str(found.explanation.meaning)
        assert found.layers[0].key.status == "unknown"

    def test_under_a_revoked_signing_key_nothing_is_authentic(self, issue):
        row, token = issue()
        lifecycle.revoke(row.signing_kid, reason="stolen")
        denylist.forget()
        found = look(token)

        assert codes(found) == ("REFUSED", "unknown_kid")
        assert "was revoked" in str(found.explanation.meaning)
        assert (found.layers[1].key.status, found.layers[1].authentic, found.authentic) == ("revoked", False, False)
        assert found.claims  # shown, and labelled
        assert found.audit.row == row

    def test_under_a_revoked_encryption_key_shows_the_header_only(self, issue):
        row, token = issue()
        lifecycle.revoke(row.encryption_kid, reason="stolen")
        found = look(token)

        assert codes(found) == ("REFUSED", "unknown_kid")
        assert "was revoked" in str(found.explanation.meaning)
        assert found.claims == ()

    def test_under_a_key_that_retired_long_ago_says_so(self, issue):
        row, token = issue()
        lifecycle.rotate(Key.Use.ENCRYPTION, force=True)
        Key.objects.filter(kid=row.encryption_kid).update(retired_at=timezone.now() - timedelta(days=3))
        keyring.forget()
        found = look(token)

        assert codes(found) == ("REFUSED", "unknown_kid")
        assert "retired so long ago" in str(found.explanation.meaning)

    def test_whose_private_half_is_elsewhere_can_only_be_opened_by_the_gateway(self, token):
        Key.objects.filter(use="enc").update(sealed_private_jwk="")
        keyring.forget()
        found = look(token)

        assert codes(found) == ("UNDECIDED", "no_key")
        assert "nothing but the gateway can open it" in str(found.explanation.meaning)
        assert not found.layers[0].key.private_held

    def test_whose_private_half_is_elsewhere_while_others_are_here_is_not_called_refused(self, issue):
        row, token = issue()
        lifecycle.rotate(Key.Use.ENCRYPTION, force=True)
        Key.objects.filter(kid=row.encryption_kid).update(sealed_private_jwk="")
        keyring.forget()
        found = look(token)

        assert codes(found) == ("UNDECIDED", "unknown_kid")
        assert "nothing but the gateway" in str(found.explanation.meaning)

    def test_that_are_missing_are_a_fault_of_ours(self, token):
        Key.objects.all().delete()
        keyring.forget()
        found = look(token)

        assert codes(found) == ("UNDECIDED", "no_key")
        assert "fault of this deployment" in str(found.explanation.meaning)
        assert "instaccess_init" in found.detail

    def test_o6_that_do_not_open_are_a_fault_of_ours(self, token, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43]}
        keyring.forget()
        found = look(token)

        assert codes(found) == ("UNDECIDED", "kek_missing")
        assert "fault of ours" in str(found.explanation.meaning)

    def test_k7_that_were_altered_are_a_fault_of_ours(self, token):
        sealed = Key.objects.get(use="enc").sealed_private_jwk
        Key.objects.filter(use="enc").update(sealed_private_jwk=sealed[:-4] + "AAAA")
        keyring.forget()

        assert codes(look(token)) == ("UNDECIDED", "seal_broken")

    def test_of_the_settings_are_in_use_though_no_row_knows_them(self, rsa_pool, settings):
        make = Makes(rsa_pool.take("sig"), rsa_pool.take("enc"))
        settings.INSTACCESS = {
            "DECRYPTION_KEYS": [make.encryption.export()],
            "VERIFICATION_KEYS": [make.signing.export_public()],
        }
        found = look(make.token(**times(0)))

        assert found.outcome is Outcome.ACCEPTED
        assert {layer.key.status for layer in found.layers} == {"configured"}

    @pytest.mark.parametrize("name", ["LEEWAY", "ENCRYPTION_ALG", "ISSUER", "DENY_LIST"])
    def test_behind_a_bad_setting_are_a_fault_of_ours(self, token, settings, name):
        settings.INSTACCESS = {name: object()}

        assert codes(look(token)) == ("UNDECIDED", "config")
        assert name in look(token).detail

    def test_without_a_deny_list_are_undecided_and_the_rest_is_shown(self, token, settings):
        settings.INSTACCESS = {"DENY_LIST": "https://127.0.0.1:1/", "SERVICE_SECRETS": ["s" * 32]}
        found = look(token)

        assert codes(found) == ("UNDECIDED", "source_unavailable")
        assert found.authentic
        assert found.claims


class TestTheAuditRow:
    def test_that_is_missing_for_a_good_token_is_alarming(self, make):
        found = look(make.token(**times(0)))

        assert found.authentic
        assert found.audit.row is None
        assert any("treat the key as stolen" in alarm for alarm in found.alarms)

    def test_that_is_missing_for_a_forged_one_is_not(self, make):
        found = look(make.signed(good_claims())[:-8] + "AAAAAAAA")

        assert found.code in {"bad_signature", "malformed"}
        assert found.alarms == ()

    @pytest.mark.parametrize(
        ("column", "value", "name"),
        [
            ("user_uuid", "somebody else", "sub"),
            ("account_uuid", "x", "acct"),
            ("canvas_domain", "x", "canvas_domain"),
            ("real_user_uuid", "x", "masq_sub"),
            ("signing_kid", "x", "signing"),
            ("encryption_kid", "x", "encryption"),
        ],
    )
    def test_that_was_edited_is_alarming_and_what_differs_is_named(self, issue, column, value, name):
        row, token = issue()
        IssuedToken.objects.filter(pk=row.pk).update(**{column: value})
        found = look(token)

        assert [(difference.claim, difference.row) for difference in found.audit.differences] == [(name, value)]
        assert found.audit.evidence is evidence.Verdict.BROKEN
        assert len(found.alarms) == 2

    def test_whose_times_were_edited_is_named_too(self, issue):
        row, token = issue()
        IssuedToken.objects.filter(pk=row.pk).update(expires_at=row.expires_at + timedelta(days=1))

        assert [difference.claim for difference in look(token).audit.differences] == ["exp"]

    @pytest.mark.parametrize("jti", ["x", "{JTI}", "urn:uuid:JTI", "JTI\x00", "\ud800", 5, None, ["JTI"]])
    def test_is_looked_for_by_the_id_to_the_letter(self, row, make, jti):
        known = str(row().jti)
        wanted = jti.replace("JTI", known) if isinstance(jti, str) else jti

        found = look(make.token(**times(0), jti=wanted))

        assert found.audit is None or found.audit.row is None

    def test_that_nobody_can_vouch_for_any_more_is_not_called_altered(self, issue, settings):
        token = issue()[1]
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43, "SECRET_KEY"]}
        IssuedToken.objects.update(mac="unknown.AAAA")
        keyring.forget()

        assert look(token).audit.evidence is evidence.Verdict.UNKNOWN


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


def reason_of_gateway(text: str, caplog: Any) -> str:
    """What the gateway has in its log for this bearer; empty for a 204."""
    caplog.clear()
    status = Client().get(VERIFY, headers={"Authorization": f"Bearer {text}"}).status_code
    if status == 204:
        return ""
    assert status == 401
    return next(str(record.args[0]) for record in caplog.records if record.name == "instaccess.gateway")


def reason_of_service(text: str, caplog: Any) -> str:
    """What a service has in its log; `-` where it leaves the bearer to another authenticator."""
    caplog.clear()
    request = Request(APIRequestFactory().get("/", headers={"Authorization": f"Bearer {text}"}))
    try:
        return "" if consumer.InstAccessAuthentication().authenticate(request) else "-"
    except APIException:
        return next(str(record.args[0]) for record in caplog.records if record.name == "instaccess.service")


HEADERS: list[dict[str, Any]] = [
    {"alg": "RSA1_5"},
    {"alg": "none"},
    {"enc": "A256CBC-HS512"},
    {"zip": "DEF"},
    {"kid": "x" * 200},
    {"kid": 5},
    {"kid": "unheard-of"},
    {"typ": "JOSE"},
    {"cty": "text"},
    {"crit": ["exp"]},
]
CLAIMS: list[dict[str, Any]] = [
    {},
    {"exp": 5},
    {"exp": None},
    {"exp": "later"},
    {"exp": 2**60},
    {"iat": 10, "exp": 20},
    {"nbf": 2**52},
    {"sub": ""},
    {"sub": "\x00"},
    {"acct": 5},
    {"iss": "other"},
    {"jti": []},
    {"instructure_service": "yes"},
    {"masq_sub": "nobody", "masq_shard": 1},
    {"masq_sub": "nobody"},
]


class TestTheVerdictIsThatOfTheWire:
    """The reason is the one in the log of whoever refuses it, for every kind of token."""

    @pytest.fixture(autouse=True)
    def listening(self, caplog):
        caplog.set_level(logging.WARNING, "instaccess")

    @pytest.mark.parametrize("members", HEADERS, ids=str)
    def test_for_each_header_of_an_encrypted_one(self, token, caplog, members):
        altered = with_header(token, header_of(token) | members)

        assert look(altered).code == reason_of_gateway(altered, caplog) != ""

    @pytest.mark.parametrize("members", HEADERS, ids=str)
    def test_for_each_header_of_a_signed_one(self, token, caplog, members):
        signed = signed_inside(token)
        altered = with_header(signed, header_of(signed) | members)

        assert look(altered).code == reason_of_service(altered, caplog) != ""
        assert look(make_outer(altered)).code == reason_of_gateway(make_outer(altered), caplog) != ""

    @pytest.mark.parametrize("changes", CLAIMS, ids=str)
    def test_for_each_kind_of_claims(self, make, caplog, user, changes):
        payload = good_claims(**({"sub": str(issuer.identity.user_uuid(user))} | changes))
        signed = make.signed(payload)
        encrypted = make.encrypted(signed)

        assert look(encrypted).code == reason_of_gateway(encrypted, caplog)
        expected = reason_of_service(signed, caplog)
        assert look(signed).code == ("foreign_issuer" if expected == "-" else expected)

    @pytest.mark.parametrize(
        "changed", [{}, {"LEEWAY": 300}, {"ISSUER": "other"}, {"ENCRYPTION_ALG": "RSA1_5"}], ids=str
    )
    def test_under_each_setting(self, make, caplog, settings, changed):
        expired = int(time.time()) - MAX_LIFETIME - 100
        texts = [make.token(iat=expired, exp=expired + MAX_LIFETIME), make.token(**times(0))]
        texts.append(make.encrypted(make.signed(good_claims()), alg="RSA1_5"))
        settings.INSTACCESS = changed

        for text in texts:
            assert look(text).code == reason_of_gateway(text, caplog)

    def test_for_respelled_ones(self, token, caplog):
        for text in respellings(token):
            if tidied(text) == text and text.isascii() and text.isprintable():
                # The gateway looks at the header as a whole first; to whoever copied the token it is all the same.
                expected = reason_of_gateway(text, caplog).replace("malformed_header", "malformed")
                assert look(text).code == expected != ""


def make_outer(signed: str) -> str:
    ring = keyring.current()
    return Makes(ring.signing_key().private(), ring.encryption_key().private()).encrypted(signed)


class TestInspecting:
    @pytest.fixture
    def texts(self, issue, make, rsa_pool, access_token):
        """One of each kind."""
        token = issue()[1]
        signed = signed_inside(token)
        foreign = Makes(rsa_pool.take("sig"), rsa_pool.take("enc"))
        return [
            token,
            signed,
            issue(minutes_ago=90)[1],
            token[:-4] + "AAAA",
            signed[:-4] + "AAAA",
            make.token(**times(0)),
            foreign.token(**times(0)),
            foreign.signed(good_claims()),
            access_token.token,
            "x" * 9000,
        ]

    def test_writes_nothing(self, texts):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            for text in texts:
                look(text)

        assert queries.captured_queries
        assert {query["sql"].split()[0] for query in queries.captured_queries} == {"SELECT"}

    def test_asks_a_bounded_number_of_questions(self, token, django_assert_max_num_queries):
        look(token)

        with django_assert_max_num_queries(8):
            look(token)

    def test_is_not_remembered_by_the_gateway(self, texts):
        for text in texts:
            look(text)

        assert not forward_auth._remembered._tokens

    def test_says_nothing_in_the_log_but_what_keys_have_to_say(self, texts, caplog):
        caplog.set_level(logging.DEBUG)
        for text in texts:
            look(text)

        assert [
            record for record in caplog.records if record.name.startswith("instaccess.") and record.levelno < 30
        ] == []
        for text in texts:
            assert all(part not in caplog.text for part in text.split(".") if len(part) > 20)

    def test_gives_no_token_back_and_nothing_that_would_do_as_one(self, texts):
        for text in texts:
            inside = signed_inside(text).split(".")[1:] if look(text).layers[1:] else []
            said = repr(look(text))
            assert all(part not in said for part in [*text.split("."), *inside] if len(part) > 20)

    @pytest.mark.parametrize(
        "payload", [b"[]", b"nope", b"[" * 5000, b'{"a":1e999}', b'{"exp":' + b"9" * 4000 + b"}", b"\xff"]
    )
    def test_of_anything_at_all_is_no_error(self, make, payload):
        for text in (make.signed(payload), make.encrypted(make.signed(payload))):
            assert look(text).outcome in Outcome

    def test_speaks_the_language_of_who_asks(self, token):
        with translation.override("de"):
            assert str(look(token).outcome.value)


RAISING = ["jose", "compact", "claims", "gateway", "forward_auth", "consumer", "sealing"]


def codes_in(name: str) -> set[str]:
    """Every `code="…"` that something is raised or answered with in a file."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    return {
        word.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute))
        for word in node.keywords
        if word.arg == "code"
        and isinstance(word.value, ast.Constant)
        and "ClaimsTooLarge" not in ast.unparse(node.func)
    }


def codes_of_errors() -> set[str]:
    """The codes of the errors that a refusal can be, or that keep anybody from deciding."""
    roots = (exceptions.InvalidToken, exceptions.KeyUnavailable, exceptions.ConfigError)
    return {error.code for error in vars(exceptions).values() if isinstance(error, type) and issubclass(error, roots)}


class TestTheWords:
    @pytest.mark.parametrize(
        "name", ["jose", "compact", "claims", "gateway", "exceptions", "forward_auth", "consumer", "sealing"]
    )
    def test_explain_every_reason_there_is_in(self, name):
        assert codes_in(name) - EXPLANATIONS.keys() == set()

    def test_explain_every_error(self):
        assert codes_of_errors() - EXPLANATIONS.keys() == set()

    def test_explain_nothing_that_does_not_exist(self):
        known = codes_of_errors() | {"accepted"}
        for name in RAISING:
            known |= codes_in(name)

        assert {key.partition(":")[0] for key in EXPLANATIONS} - known == set()

    def test_are_found_by_the_reader_of_codes(self):
        assert {"wrong_alg", "bad_signature"} <= codes_in("jose")
        assert "malformed" in codes_in("compact")
        assert {"bad_claim", "not_yet"} <= codes_in("claims")

    @pytest.mark.parametrize("code", EXPLANATIONS)
    def test_are_sentences(self, code):
        for text in map(str, EXPLANATIONS[code]):
            assert text[0].isupper()
            assert text.endswith(".")

    def test_for_a_code_from_the_future_refer_to_the_detail(self):
        assert explain("made up") == EXPLANATIONS["invalid"]
