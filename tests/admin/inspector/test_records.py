"""What the inspector finds in this deployment's records: the token's keys and its audit row."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from instaccess.admin.inspector.verdict import Outcome
from instaccess.audit import row_hmac
from instaccess.keys import lifecycle, ring
from instaccess.models import IssuedToken, Key
from instaccess.trust import denylist
from tests.admin.inspector.helpers import codes, good_claims, look, times
from tests.support.tokens import Makes

pytestmark = pytest.mark.django_db


class TestKeys:
    def test_under_an_unknown_kid_says_where_it_may_come_from(self, rsa_pool):
        found = look(Makes(rsa_pool.take("sig"), rsa_pool.take("enc")).token(**times(0)))

        assert codes(found) == ("REFUSED", "unknown_kid")
        assert "not held here" in str(found.explanation.meaning)
        assert found.layers[0].key.status == "unknown"

    def test_under_a_revoked_signing_key_nothing_is_authentic(self, issue):
        row, token = issue()
        lifecycle.revoke(row.signing_kid, reason="stolen")
        denylist.clear_cache()
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
        ring.clear_cache()
        found = look(token)

        assert codes(found) == ("REFUSED", "unknown_kid")
        assert "retired so long ago" in str(found.explanation.meaning)

    def test_whose_private_half_is_elsewhere_can_only_be_opened_by_the_gateway(self, token):
        Key.objects.filter(use="enc").update(sealed_private_jwk="")
        ring.clear_cache()
        found = look(token)

        assert codes(found) == ("UNDECIDED", "no_key")
        assert "nothing but the gateway can open it" in str(found.explanation.meaning)
        assert not found.layers[0].key.private_held

    def test_whose_private_half_is_elsewhere_while_others_are_here_is_not_called_refused(self, issue):
        row, token = issue()
        lifecycle.rotate(Key.Use.ENCRYPTION, force=True)
        Key.objects.filter(kid=row.encryption_kid).update(sealed_private_jwk="")
        ring.clear_cache()
        found = look(token)

        assert codes(found) == ("UNDECIDED", "unknown_kid")
        assert "nothing but the gateway" in str(found.explanation.meaning)

    def test_that_are_missing_are_a_fault_of_ours(self, token):
        Key.objects.all().delete()
        ring.clear_cache()
        found = look(token)

        assert codes(found) == ("UNDECIDED", "no_key")
        assert "fault of this deployment" in str(found.explanation.meaning)
        assert "instaccess_init" in found.detail

    def test_o6_that_do_not_open_are_a_fault_of_ours(self, token, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43]}
        ring.clear_cache()
        found = look(token)

        assert codes(found) == ("UNDECIDED", "kek_missing")
        assert "fault of ours" in str(found.explanation.meaning)

    def test_k7_that_were_altered_are_a_fault_of_ours(self, token):
        sealed = Key.objects.get(use="enc").sealed_private_jwk
        Key.objects.filter(use="enc").update(sealed_private_jwk=sealed[:-4] + "AAAA")
        ring.clear_cache()

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
        assert any("revoke the signing key" in alarm for alarm in found.alarms)

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
        assert found.audit.evidence is row_hmac.HmacStatus.BROKEN
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
        ring.clear_cache()

        assert look(token).audit.evidence is row_hmac.HmacStatus.UNKNOWN
