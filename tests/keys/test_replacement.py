"""Tests of the replacement of all keys after a restore: the revoked, the kept and the generated keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from instaccess import audit, keys, trust
from instaccess.exceptions import ConfigError, KeyRefused, KeyUnavailable, UnsealError
from instaccess.keys import lifecycle, provision, replacement
from instaccess.models import Key, Revocation
from instaccess.tokens import CLOCK_SKEW
from tests.keys.helpers import public_pem
from tests.support import key_texts
from tests.support.stored_keys import CURRENT, ENC, FUTURE, NEW_KEK, OLD_KEK, PAST, REVOKED, SIG, kids

pytestmark = pytest.mark.django_db


def replace_all(**options: Any) -> replacement.Replacement:
    return keys.replace_all(by="root", **options)


def revocations(kind: str) -> list[Revocation]:
    return list(Revocation.objects.filter(kind=kind))


@pytest.fixture
def gateway_key(initial_keys, rsa_pool) -> Key:
    """Import the public key of a gateway, and make it the current encryption key."""
    key = key_texts.import_key(public_pem(rsa_pool), use=ENC)
    return lifecycle.activate(key.kid, force=True)


@pytest.mark.usefixtures("initial_keys")
class TestReplacingAllKeys:
    def test_k15_replacement_revokes_future_current_and_past_keys_and_generates_initial_keys(self):
        lifecycle.rotate(SIG, force=True)
        lifecycle.rotate(ENC, force=True)
        before = {key.kid for key in Key.objects.all()}
        assert {key.status for key in Key.objects.all()} == {FUTURE, CURRENT, PAST}

        result = replace_all()

        assert {key.kid for key in Key.objects.filter(status=REVOKED)} == before
        assert {key.kid for key in result.plan.revoked} == before
        assert not Key.objects.filter(status=REVOKED).exclude(sealed_private_jwk="").exists()
        assert sorted((key.use, key.status) for key in result.generated) == sorted(provision.INITIAL)
        assert before.isdisjoint(key.kid for key in result.generated)
        provision.check_sealed_keys()

    def test_k15_replacement_records_one_revocation_of_all_tokens_and_a_revocation_of_each_old_key(self):
        before = {key.kid for key in Key.objects.all()}
        replace_all()

        assert len(revocations("all")) == 1
        assert {row.value for row in revocations("key")} == before
        assert {row.revoked_by for row in Revocation.objects.all()} == {"root"}
        assert {row.reason for row in Revocation.objects.all()} == {"the database was restored from a backup"}

    def test_k15_replacement_records_a_key_that_was_already_revoked_in_the_backup(self):
        old = kids(SIG, CURRENT)[0]
        lifecycle.revoke(old)
        Revocation.objects.all().delete()

        replace_all()

        assert old in trust.read_revocations().keys

    def test_k15_replacement_refuses_tokens_of_a_server_whose_clock_is_a_minute_fast(self, row):
        now = timezone.now()
        with time_machine.travel(now, tick=False):
            result = replace_all()

        assert result.refused_until.timestamp() == int(now.timestamp()) + CLOCK_SKEW
        assert trust.read_revocations().all_until == int(now.timestamp()) + CLOCK_SKEW

    def test_k15_replacement_marks_live_tokens_as_revoked(self, row):
        live, expired = row(), row(age=7300)
        result = replace_all(reason="the disk broke")

        live.refresh_from_db()
        expired.refresh_from_db()
        assert (result.tokens, live.revocation_reason, live.revoked_by) == (1, "the disk broke", "root")
        assert expired.revoked_at is None
        assert audit.verify(keys.evidence_keys()).summary == ""

    def test_k15_checkpoints_of_old_keys_can_still_be_verified_after_a_replacement(self, row):
        row(age=86_400)
        audit.seal(keys.evidence_keys())
        replace_all()

        report = audit.verify(keys.evidence_keys())
        assert (report.summary, report.checkpoints) == ("", 1)

    def test_second_replacement_revokes_the_keys_of_the_first_replacement(self):
        first = {key.kid for key in replace_all().generated}
        second = {key.kid for key in replace_all().generated}

        assert Key.objects.filter(status=REVOKED, kid__in=first).count() == 3
        assert {key.kid for key in Key.objects.exclude(status=REVOKED)} == second
        assert len(revocations("all")) == 2

    def test_replacement_revokes_a_key_whose_row_was_modified(self):
        Key.objects.filter(use=SIG, status=CURRENT).update(activated_at=timezone.now() - timedelta(days=900))
        replace_all()

        assert kids(SIG, REVOKED)
        provision.check_sealed_keys()


class TestAnImportedKeyOfAGateway:
    def test_k15_replacement_revokes_an_imported_key_and_generates_no_key_for_the_gateway(self, gateway_key):
        result = replace_all()

        assert gateway_key.kid in kids(ENC, REVOKED)
        assert result.plan.missing
        assert kids(ENC, CURRENT) == []

    def test_k15_replacement_keeps_an_imported_key_that_the_operator_names(self, gateway_key):
        result = replace_all(keep=[gateway_key.kid[:8]])

        assert kids(ENC, CURRENT) == [gateway_key.kid]
        assert (result.plan.missing, [key.kid for key in result.plan.kept]) == (False, [gateway_key.kid])
        assert gateway_key.kid not in trust.read_revocations().keys
        assert {key.use for key in result.generated} == {SIG}

    def test_k15_replacement_generates_an_encryption_key_if_the_imported_key_is_a_future_key(
        self, initial_keys, rsa_pool
    ):
        imported = key_texts.import_key(public_pem(rsa_pool), use=ENC)
        result = replace_all(keep=[imported.kid])

        assert {key.use for key in result.generated} == {SIG, ENC}
        assert kids(ENC, FUTURE) == [imported.kid]

    def test_replacement_generates_an_encryption_key_if_only_past_keys_of_this_server_remain(self, gateway_key):
        lifecycle.revoke(gateway_key.kid)
        assert (kids(ENC, CURRENT), len(kids(ENC, PAST))) == ([], 1)

        assert not replace_all().plan.missing
        assert len(kids(ENC, CURRENT)) == 1


class TestARefusedReplacement:
    @pytest.fixture(autouse=True)
    def unchanged(self, initial_keys):
        before = list(Key.objects.order_by("pk").values())
        yield
        assert list(Key.objects.order_by("pk").values()) == before
        assert not Revocation.objects.exists()

    def test_replacement_cannot_keep_a_key_whose_private_key_is_in_the_backup(self):
        with pytest.raises(KeyRefused, match="its private key is in the backup"):
            replace_all(keep=kids(ENC, CURRENT))

    def test_replacement_cannot_keep_an_unknown_key(self):
        with pytest.raises(KeyUnavailable, match="there is no key"):
            replace_all(keep=["unknown"])

    def test_replacement_changes_no_key_if_the_setting_key_encryption_keys_is_invalid(self, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["short"]}
        with pytest.raises(ConfigError):
            replace_all()

    def test_replacement_changes_no_key_if_the_old_key_encryption_key_is_missing(self, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK]}
        with pytest.raises(UnsealError, match=r"add that key-encryption key to INSTACCESS\['KEY_ENCRYPTION_KEYS'\]"):
            replace_all()


@pytest.mark.usefixtures("initial_keys")
class TestAKeyThatCannotBeKept:
    def test_replacement_cannot_keep_a_revoked_key(self, rsa_pool):
        key = key_texts.import_key(public_pem(rsa_pool), use=ENC)
        lifecycle.revoke(key.kid)

        with pytest.raises(KeyRefused, match="it is revoked"):
            replace_all(keep=[key.kid])

    def test_replacement_cannot_keep_a_key_whose_row_was_modified(self, rsa_pool):
        key = key_texts.import_key(public_pem(rsa_pool), use=ENC)
        Key.objects.filter(pk=key.pk).update(created_at=timezone.now() - timedelta(days=1))

        with pytest.raises(KeyRefused, match="its row was modified"):
            replace_all(keep=[key.kid])


class TestAnOlderKeyEncryptionKey:
    def test_k15_replacement_with_the_old_key_encryption_key_accepts_a_backup_from_before_a_reseal(self, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}
        provision.init()
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}

        result = replace_all()

        assert len(result.generated) == 3
        provision.check_sealed_keys()
