"""Tests of `manage.py instaccess_keys rotate`, `activate`, `revoke` and `reseal`."""

from __future__ import annotations

import io
import json
import os
import pwd
import time
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from instaccess.conf import conf
from instaccess.issuer import issuing
from instaccess.keys import lifecycle
from instaccess.models import IssuedToken, Key
from tests.management.keys.helpers import ENC, SIG, error_of, key_of, run, run_json

pytestmark = pytest.mark.django_db


def rows() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


@pytest.mark.usefixtures("initial_keys")
class TestKeysRotate:
    def test_rotate_prints_the_time_of_the_next_rotation_if_no_rotation_is_due(self):
        run("rotate")  # The first call generates the future encryption key.
        before = rows()

        assert run("rotate").splitlines() == [
            "signing: nothing was due.",
            "signing: the next rotation is due at 2026-12-23T12:00:00Z.",
            "encryption: nothing was due.",
            "encryption: the next rotation is due at 2026-12-23T12:00:00Z.",
        ]
        assert rows() == before

    def test_rotate_prints_the_retired_the_current_and_the_generated_key(self, clock):
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        clock.shift(timedelta(days=30))
        lines = run("rotate", "--use", "sig").splitlines()

        assert lines == [
            f"signing: key {future} is now current; key {current} is past.",
            f"signing: generated the future key {key_of(SIG, 'future').kid}.",
            "signing: the next rotation is due at 2027-01-22T12:00:00Z.",
        ]

    def test_rotate_prints_the_export_command_for_a_new_encryption_key(self):
        text = run("rotate", "--use", "enc")

        assert f"export --private --kid {key_of(ENC, 'future').kid}`" in text

    def test_rotate_prints_the_keys_whose_private_keys_were_erased(self, clock):
        past = lifecycle.rotate(SIG, force=True).retired.kid
        clock.shift(timedelta(seconds=conf.key_retention_seconds))

        assert f"signing: erased the private key of key {past}, because its last token has expired." in run("rotate")

    def test_rotate_with_force_changes_the_current_key(self):
        future = key_of(SIG, "future").kid
        run("rotate", "--use", "sig", "--force")

        assert key_of(SIG, "current").kid == future

    def test_rotation_of_the_public_key_of_a_gateway_asks_for_the_next_public_key(self, files, pair):
        Key.objects.filter(use=ENC).delete()
        run("import", "--use", "enc", "--file", files["public.pem"])
        run("activate", "--kid", pair.thumbprint())

        assert "Import the next public key from the owner of the private key" in run("rotate", "--use", "enc")

    def test_rotate_prints_one_json_object_per_use(self, clock):
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        clock.shift(timedelta(days=30))
        signing, encryption = run_json("rotate")

        assert signing == {
            "use": "sig",
            "retired": current,
            "activated": future,
            "made": key_of(SIG, "future").kid,
            "erased": [],
            "lost_race": False,
            "next_due": "2027-01-22T12:00:00Z",
        }
        assert (encryption["use"], encryption["activated"], encryption["made"]) == (
            "enc",
            None,
            key_of(ENC, "future").kid,
        )

    def test_k8_rotate_without_a_current_key_fails_and_names_the_command_instaccess_init(self):
        Key.objects.all().delete()
        text = error_of("rotate")

        assert "there is no current signing key" in text
        assert "there is no current encryption key" in text
        assert "instaccess_init" in text

    def test_rotate_changes_and_reports_encryption_keys_if_the_rotation_of_signing_keys_fails(self, clock):
        Key.objects.filter(use=SIG, status="current").delete()
        out = io.StringIO()
        text = error_of("rotate", "--json", out=out)

        assert "there is no current signing key" in text
        assert [outcome["made"] for outcome in json.loads(out.getvalue())] == [key_of(ENC, "future").kid]


@pytest.mark.usefixtures("initial_keys")
class TestKeysActivate:
    def test_activate_prints_the_new_current_key(self):
        kid = key_of(SIG, "future").kid

        assert run("activate", "--kid", kid[:8], "--force") == f"Key {kid} is now the current signing key.\n"
        assert key_of(SIG, "current").kid == kid

    def test_k4_activate_before_the_end_of_the_lead_time_fails_and_names_the_time_and_the_option_force(self):
        text = error_of("activate", "--kid", key_of(SIG, "future").kid)

        assert "2026-11-23 12:05:03 UTC" in text
        assert "--force" in text

    def test_activate_prints_the_key_as_json(self):
        kid = key_of(SIG, "future").kid

        assert run_json("activate", "--kid", kid, "--force")["status"] == "current"


@pytest.mark.usefixtures("initial_keys")
class TestKeysRevoke:
    def test_revoking_a_key_prints_the_number_of_tokens_and_the_new_current_key(self, user):
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())
        text = run("revoke", "--kid", current, "--reason", "laptop stolen")

        first, *others = text.splitlines()
        assert first == f"Revoked key {current}. Live tokens revoked with the key: 1. Key {future} is now current."
        assert others == [
            "Gateways refuse the tokens within 5 seconds.",
            "Services in other deployments that read the JWKS accept tokens of this key for up to JWKS_MAX_AGE (300 "
            "seconds by default). Restart these services, or put these services behind a gateway.",
            "If gateways or services list the key in VERIFICATION_KEYS, remove the key there, and restart these "
            "gateways and services.",
        ]
        assert IssuedToken.objects.get().revocation_reason == "laptop stolen"

    def test_revoking_an_encryption_key_prints_the_steps_for_gateways_that_have_a_copy_of_the_key(self):
        text = run("revoke", "--kid", key_of(ENC, "current").kid)

        assert text.splitlines()[1:] == [
            "Gateways refuse the tokens within 5 seconds.",
            "If gateways in other deployments list the private key in DECRYPTION_KEYS, replace the private key there "
            "with the private key of the current encryption key, and restart these gateways.",
        ]

    def test_revoking_a_key_stores_the_operating_system_user_in_the_audit_log(self, user, monkeypatch):
        for name in ("LOGNAME", "USER", "SUDO_USER"):
            monkeypatch.setenv(name, "grace")
        issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())
        run("revoke", "--kid", key_of(SIG, "current").kid)

        by = IssuedToken.objects.get().revoked_by
        assert by == f"uid {os.getuid()} ({pwd.getpwuid(os.getuid()).pw_name}), command line"

    def test_revoking_a_future_key_prints_that_the_current_key_did_not_change(self):
        assert "The current key did not change." in run("revoke", "--kid", key_of(SIG, "future").kid)

    def test_revoke_prints_the_next_steps_if_no_current_key_is_left(self, files, pair):
        Key.objects.filter(use=ENC).delete()
        run("import", "--use", "enc", "--file", files["public.pem"])
        run("activate", "--kid", pair.thumbprint())

        assert "There is no current encryption key now: import or generate a key, then activate the key." in run(
            "revoke", "--kid", pair.thumbprint()
        )

    def test_revoke_prints_the_revoked_the_new_current_and_the_new_future_key_as_json(self):
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        facts = run_json("revoke", "--kid", current)

        assert (facts["key"]["kid"], facts["key"]["status"]) == (current, "revoked")
        assert (facts["successor"]["kid"], facts["made"]["kid"]) == (future, key_of(SIG, "future").kid)
        assert facts["tokens"] == 0

    def test_revoking_an_unknown_key_is_refused(self):
        assert "there is no key" in error_of("revoke", "--kid", "unknown-kid")


@pytest.mark.usefixtures("initial_keys")
class TestKeysReseal:
    def test_reseal_prints_the_number_of_private_keys_that_were_encrypted_again(self):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43, "SECRET_KEY"]}):
            assert run("reseal") == "Private keys encrypted again: 3.\n"
            assert run("reseal") == "Every private key is already encrypted with the first key-encryption key.\n"

    def test_reseal_prints_the_numbers_of_keys_and_hmacs_as_json(self):
        assert run_json("reseal") == {"resealed": 0, "reauthenticated": 0}

    def test_o6_reseal_fails_and_names_the_setting_if_the_old_key_encryption_key_is_missing(self):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
            assert "INSTACCESS['KEY_ENCRYPTION_KEYS']" in error_of("reseal")


@pytest.mark.usefixtures("initial_keys")
class TestRevokeWithAnInvalidKeyEncryptionKey:
    def test_revoking_a_key_takes_effect_even_if_no_new_key_can_be_generated(self):
        kid = key_of(SIG, "current").kid
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["no key"]}):
            error = error_of("revoke", "--kid", kid)

        assert "The key is revoked, but no new key could be generated" in error
        assert "KEY_ENCRYPTION_KEYS" in error
        assert Key.objects.get(kid=kid).status == "revoked"
        assert not Key.objects.filter(use=SIG, status="current").exists()
