"""Tests of the keys and the audit row that the inspector finds for a token."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from instaccess.admin.inspector.verdict import Outcome
from instaccess.audit import row_hmac
from instaccess.keys import lifecycle, ring
from instaccess.models import IssuedToken, Key
from instaccess.trust import denylist
from tests.admin.inspector.helpers import codes, good_claims, inspect_text, times
from tests.support.stored_keys import write
from tests.support.tokens import TokenFactory

pytestmark = pytest.mark.django_db


class TestTheKeysOfAnInspection:
    def test_inspector_explains_that_the_key_of_a_token_with_an_unknown_kid_is_not_available(self, rsa_pool):
        inspection = inspect_text(TokenFactory(rsa_pool.take("sig"), rsa_pool.take("enc")).token(**times(0)))

        assert codes(inspection) == ("REFUSED", "unknown_kid")
        assert "not available on this server" in str(inspection.explanation.meaning)
        assert inspection.layers[0].key.status == "unknown"

    def test_inspector_shows_a_token_signed_with_a_revoked_key_as_not_authentic(self, issue):
        row, token = issue()
        lifecycle.revoke(row.signing_kid, reason="stolen")
        denylist.clear_cache()
        inspection = inspect_text(token)

        assert codes(inspection) == ("REFUSED", "unknown_kid")
        assert "was revoked" in str(inspection.explanation.meaning)
        assert (inspection.layers[1].key.status, inspection.layers[1].authentic, inspection.authentic) == (
            "revoked",
            False,
            False,
        )
        assert inspection.claims  # The page labels these claims as not authenticated.
        assert inspection.audit.row == row

    def test_inspector_shows_only_the_header_of_a_token_encrypted_for_a_revoked_key(self, issue):
        row, token = issue()
        lifecycle.revoke(row.encryption_kid, reason="stolen")
        inspection = inspect_text(token)

        assert codes(inspection) == ("REFUSED", "unknown_kid")
        assert "was revoked" in str(inspection.explanation.meaning)
        assert inspection.claims == ()

    def test_inspector_explains_that_the_key_of_a_token_retired_long_ago(self, issue):
        row, token = issue()
        lifecycle.rotate(Key.Use.ENCRYPTION, force=True)
        write(Key.objects.filter(kid=row.encryption_kid), retired_at=timezone.now() - timedelta(days=3))
        ring.clear_cache()
        inspection = inspect_text(token)

        assert codes(inspection) == ("REFUSED", "unknown_kid")
        assert "retired so long ago" in str(inspection.explanation.meaning)

    def test_inspector_refers_to_the_gateway_if_the_private_key_is_not_stored_on_this_server(self, token):
        write(Key.objects.filter(use="enc"), sealed_private_jwk="")
        ring.clear_cache()
        inspection = inspect_text(token)

        assert codes(inspection) == ("UNDECIDED", "no_key")
        assert "only the gateway can decrypt the token" in str(inspection.explanation.meaning)
        assert not inspection.layers[0].key.private_held

    def test_inspector_is_undecided_about_a_token_for_an_external_key_if_other_keys_are_stored(self, issue):
        row, token = issue()
        lifecycle.rotate(Key.Use.ENCRYPTION, force=True)
        write(Key.objects.filter(kid=row.encryption_kid), sealed_private_jwk="")
        ring.clear_cache()
        inspection = inspect_text(token)

        assert codes(inspection) == ("UNDECIDED", "unknown_kid")
        assert "only the gateway can decrypt the token" in str(inspection.explanation.meaning)

    def test_inspector_reports_missing_keys_as_a_server_side_error(self, token):
        Key.objects.all().delete()
        ring.clear_cache()
        inspection = inspect_text(token)

        assert codes(inspection) == ("UNDECIDED", "no_key")
        assert "server-side error" in str(inspection.explanation.meaning)
        assert "instaccess_init" in inspection.detail

    def test_o6_inspector_reports_undecryptable_keys_as_a_server_side_error(self, token, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43]}
        ring.clear_cache()
        inspection = inspect_text(token)

        assert codes(inspection) == ("UNDECIDED", "kek_missing")
        assert "server-side error" in str(inspection.explanation.meaning)

    def test_k7_inspector_reports_modified_keys_as_a_server_side_error(self, token):
        sealed = Key.objects.get(use="enc").sealed_private_jwk
        Key.objects.filter(use="enc").update(sealed_private_jwk=sealed[:-4] + "AAAA")
        ring.clear_cache()

        assert codes(inspect_text(token)) == ("UNDECIDED", "seal_broken")

    def test_inspector_shows_the_status_configured_for_keys_from_the_settings(self, rsa_pool, settings):
        make = TokenFactory(rsa_pool.take("sig"), rsa_pool.take("enc"))
        settings.INSTACCESS = {
            "DECRYPTION_KEYS": [make.encryption.export()],
            "VERIFICATION_KEYS": [make.signing.export_public()],
        }
        inspection = inspect_text(make.token(**times(0)))

        assert inspection.outcome is Outcome.ACCEPTED
        assert {layer.key.status for layer in inspection.layers} == {"configured"}

    @pytest.mark.parametrize("name", ["LEEWAY", "ENCRYPTION_ALG", "ISSUER", "DENY_LIST"])
    def test_inspector_reports_an_invalid_setting_as_a_server_side_error(self, token, settings, name):
        settings.INSTACCESS = {name: object()}

        assert codes(inspect_text(token)) == ("UNDECIDED", "config")
        assert name in inspect_text(token).detail

    def test_inspector_is_undecided_but_shows_the_claims_if_the_deny_list_is_unavailable(self, token, settings):
        settings.INSTACCESS = {"DENY_LIST": "https://127.0.0.1:1/", "SERVICE_SECRETS": ["s" * 32]}
        inspection = inspect_text(token)

        assert codes(inspection) == ("UNDECIDED", "source_unavailable")
        assert inspection.authentic
        assert inspection.claims


class TestTheAuditRowOfAnInspection:
    def test_inspector_warns_if_an_authentic_token_has_no_audit_row(self, make):
        inspection = inspect_text(make.token(**times(0)))

        assert inspection.authentic
        assert inspection.audit.row is None
        assert any("revoke the signing key" in alarm for alarm in inspection.alarms)

    def test_inspector_does_not_warn_if_a_forged_token_has_no_audit_row(self, make):
        inspection = inspect_text(make.signed(good_claims())[:-8] + "AAAAAAAA")

        assert inspection.code in {"bad_signature", "malformed"}
        assert inspection.alarms == ()

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
    def test_inspector_warns_about_a_modified_audit_row_and_lists_the_differences(self, issue, column, value, name):
        row, token = issue()
        IssuedToken.objects.filter(pk=row.pk).update(**{column: value})
        inspection = inspect_text(token)

        assert [(difference.claim, difference.row) for difference in inspection.audit.differences] == [(name, value)]
        assert inspection.audit.evidence is row_hmac.HmacStatus.BROKEN
        assert len(inspection.alarms) == 2

    def test_c12_inspector_finds_no_difference_between_an_integer_client_id_and_its_audit_row(self, row, make):
        recorded = row(client_id="10000000000107")
        issued_at, expires_at = int(recorded.issued_at.timestamp()), int(recorded.expires_at.timestamp())
        payload = {"jti": str(recorded.jti), "iat": issued_at, "exp": expires_at, "sub": recorded.user_uuid}
        payload |= {"acct": recorded.account_uuid, "canvas_domain": recorded.canvas_domain}

        def differences(client_id: Any) -> list[str]:
            token = make.encrypted(make.signed(good_claims(**payload, client_id=client_id)))
            return [difference.claim for difference in inspect_text(token).audit.differences if difference.row != "s"]

        assert differences(10_000_000_000_107) == differences("10000000000107")
        assert "client_id" not in differences(10_000_000_000_107)
        assert "client_id" in differences(10_000_000_000_108)

    def test_inspector_lists_modified_times_of_an_audit_row_as_differences(self, issue):
        row, token = issue()
        IssuedToken.objects.filter(pk=row.pk).update(expires_at=row.expires_at + timedelta(days=1))

        assert [difference.claim for difference in inspect_text(token).audit.differences] == ["exp"]

    @pytest.mark.parametrize("jti", ["x", "{JTI}", "urn:uuid:JTI", "JTI\x00", "\ud800", 5, None, ["JTI"]])
    def test_inspector_finds_an_audit_row_only_by_the_canonical_token_id(self, row, make, jti):
        known = str(row().jti)
        wanted = jti.replace("JTI", known) if isinstance(jti, str) else jti

        inspection = inspect_text(make.token(**times(0), jti=wanted))

        assert inspection.audit is None or inspection.audit.row is None

    def test_inspector_reports_an_unknown_hmac_status_if_the_key_encryption_key_of_a_row_is_missing(
        self, issue, settings
    ):
        token = issue()[1]
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43, "SECRET_KEY"]}
        IssuedToken.objects.update(mac="unknown.AAAA")
        ring.clear_cache()

        assert inspect_text(token).audit.evidence is row_hmac.HmacStatus.UNKNOWN
