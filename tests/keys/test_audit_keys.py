"""Tests of `evidence_keys` and `keks_for_revocation`, which return the keys for the audit log."""

from __future__ import annotations

import pytest

from instaccess import tokens
from instaccess.exceptions import KeyUnavailable
from instaccess.keys import evidence_keys, keks_for_revocation, lifecycle
from instaccess.models import Key

pytestmark = pytest.mark.django_db


class TestEvidenceKeys:
    def test_evidence_keys_include_revoked_signing_keys_and_no_encryption_keys(self, initial_keys):
        lifecycle.revoke(Key.objects.get(use="sig", status="current").kid, reason="lost")

        assert set(evidence_keys().verification) == set(Key.objects.filter(use="sig").values_list("kid", flat=True))

    def test_evidence_keys_omit_and_log_a_key_whose_public_key_was_modified(self, initial_keys, caplog):
        modified = Key.objects.get(use="sig", status="future")
        Key.objects.filter(pk=modified.pk).update(public_jwk={})

        assert modified.kid not in evidence_keys().verification
        assert modified.kid in caplog.text

    def test_evidence_keys_sign_with_the_current_signing_key(self, initial_keys):
        keys = evidence_keys()
        jws = keys.sign(b'{"number":1}', "instaccess-checkpoint")

        kid = Key.objects.get(use="sig", status="current").kid
        assert tokens.verify(jws, keys.verification, typ="instaccess-checkpoint") == ({"number": 1}, kid)

    def test_evidence_keys_without_a_signing_key_raise_key_unavailable_only_when_signing(self):
        keys = evidence_keys()

        with pytest.raises(KeyUnavailable, match="instaccess_init"):
            keys.sign(b"{}", "instaccess-checkpoint")


def test_keks_for_revocation_is_empty_and_logs_an_error_if_the_settings_are_invalid(settings, caplog):
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["too short"]}

    assert keks_for_revocation() == []
    assert "KEY_ENCRYPTION_KEYS" in caplog.text
