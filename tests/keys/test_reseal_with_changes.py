"""Tests of resealing while another process changes keys, and of the number of keys that a reseal returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from instaccess.conf import KeyEncryptionKey, kek_id
from instaccess.exceptions import KeyAltered, KeyUnavailable
from instaccess.keys import provision, queries, sealing
from instaccess.models import Key
from instaccess.signals import key_changed
from tests.keys.helpers import DAY, ENC, SIG, START, key_of, public_pem
from tests.support import key_texts
from tests.support.receiving import received
from tests.support.stored_keys import NEW_KEK, OLD_KEK, sealed_under, write

pytestmark = pytest.mark.django_db

OLD, NEW = KeyEncryptionKey(b"\1" * 32), KeyEncryptionKey(b"\2" * 32)


@pytest.fixture(autouse=True)
def new_key_encryption_key(settings: Any, clock: Any) -> None:
    """Seal the initial keys with the old key-encryption key, and then configure the new and the old key."""
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}
    provision.init()
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}


@pytest.fixture
def change_meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Counter[str]]:
    """Return a function that lets keys change during a reseal.

    The function takes the argument `change`: a function that is called with the kid of a row, after reseal has read
    the row and before reseal updates the row. If `only_once` is False, `change` is called in every attempt. The
    function returns a counter of the attempts to seal each key again.
    """

    def change_meanwhile_(change: Callable[[str], Any], *, only_once: bool = True) -> Counter[str]:
        seal, attempts = sealing.seal, Counter[str]()

        def seal_late(private: Any, **arguments: Any) -> str:
            attempts[arguments["kid"]] += 1
            if attempts.total() == 1 or not only_once:
                monkeypatch.setattr(sealing, "seal", seal)
                change(arguments["kid"])
                monkeypatch.setattr(sealing, "seal", seal_late)
            return seal(private, **arguments)

        monkeypatch.setattr(sealing, "seal", seal_late)
        return attempts

    return change_meanwhile_


def seal_again_with_the_old_key(kid: str) -> None:
    row = Key.objects.get(kid=kid)
    private = sealing.unseal(row.sealed_private_jwk, kid=kid, use=row.use, keks=[OLD])
    row.sealed_private_jwk = sealing.seal(private, kid=kid, use=row.use, keks=[OLD])
    row.save()


class TestAKeyThatChangesDuringAReseal:
    def test_reseal_keeps_a_change_by_another_process_and_the_row_stays_authentic(self, change_meanwhile):
        changed: list[str] = []

        def change(kid: str) -> None:
            changed.append(kid)
            write([Key.objects.get(kid=kid)], created_at=START - DAY)

        change_meanwhile(change)

        assert provision.reseal() == 3
        assert Key.objects.get(created_at=START - DAY).kid == changed[0]
        assert queries.examine()[1] == {}
        assert sealed_under() == {kek_id(NEW)}

    def test_reseal_fails_after_ten_attempts_and_the_error_names_the_command_reseal(self, change_meanwhile):
        Key.objects.filter(use=SIG).delete()
        kid = key_of(ENC, "current").kid
        attempts = change_meanwhile(seal_again_with_the_old_key, only_once=False)

        with pytest.raises(KeyUnavailable, match=r"run `python manage\.py instaccess_keys reseal` again"):
            provision.reseal()
        assert attempts == {kid: 10}
        assert sealed_under() == {kek_id(OLD)}

    def test_reseal_does_not_count_keys_whose_rows_were_deleted_meanwhile(self, change_meanwhile):
        change_meanwhile(lambda kid: Key.objects.exclude(kid=kid).delete())

        assert provision.reseal() == 1

    def test_k17_reseal_computes_no_hmac_for_rows_that_were_modified_meanwhile(self, change_meanwhile):
        change_meanwhile(lambda kid: Key.objects.exclude(kid=kid).update(alg="odd"))
        before = set(Key.objects.filter(use=SIG).values_list("pk", "mac"))

        with pytest.raises(KeyAltered):
            provision.reseal()
        assert set(Key.objects.filter(alg="odd").values_list("pk", "mac")) == before


class TestTheNumberOfResealedKeys:
    def test_keys_are_resealed_each_time_another_key_encryption_key_is_listed_first(self, settings):
        assert (provision.reseal(), sealed_under()) == (3, {kek_id(NEW)})

        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK, NEW_KEK]}
        assert (provision.reseal(), sealed_under()) == (3, {kek_id(OLD)})
        assert {row.mac.partition(".")[0] for row in Key.objects.all()} == {kek_id(OLD)}

    def test_reseal_does_not_count_keys_without_a_private_key(self, settings, rsa_pool):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}
        key_texts.import_key(public_pem(rsa_pool), use=ENC)
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}

        assert provision.reseal() == 3
        assert {row.mac.partition(".")[0] for row in Key.objects.all()} == {kek_id(NEW)}

    def test_reseal_sends_a_signal_only_for_keys_that_are_resealed(self, django_capture_on_commit_callbacks):
        with received(key_changed) as facts, django_capture_on_commit_callbacks(execute=True):
            provision.reseal()
        assert [sent["change"] for sent in facts] == ["resealed"] * 3

        with received(key_changed) as facts, django_capture_on_commit_callbacks(execute=True):
            provision.reseal()
        assert facts == []


class TestSeveralKeysThatCannotBeResealed:
    def test_reseal_raises_the_first_error_and_logs_every_error(self, caplog):
        modified, damaged = key_of(SIG, "future"), key_of(ENC, "current")
        Key.objects.filter(pk=modified.pk).update(alg="odd")
        Key.objects.filter(pk=damaged.pk).update(sealed_private_jwk=damaged.sealed_private_jwk[:-4] + "AAAA")

        with pytest.raises(KeyAltered, match=modified.kid):
            provision.reseal()
        lines = [line.getMessage() for line in caplog.records if "a key could not be resealed" in line.getMessage()]
        assert [kid for line in lines for kid in (modified.kid, damaged.kid) if kid in line] == [
            modified.kid,
            damaged.kid,
        ]
        assert key_of(SIG, "current").mac.startswith(kek_id(NEW))
