"""Tests for the HMAC of a key's row: a change of a covered column with SQL is detected, on every database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test import override_settings

from instaccess import audit
from instaccess.conf import conf, kek_id
from instaccess.exceptions import KeyAltered, UnsealError
from instaccess.keys import health, lifecycle, provision, queries, row_hmac
from instaccess.models import Key
from tests.keys.helpers import ENC, SIG, START, key_of, public_pem
from tests.support import key_texts
from tests.support.stored_keys import NEW_KEK, OLD_KEK
from tests.test_database_time_zone import set_zone

pytestmark = pytest.mark.django_db

MICROSECOND = timedelta(microseconds=1)

# A row with this value is unreadable, because Python refuses to parse an integer with 5000 digits.
LONG_NUMBER = ("public_jwk", "1" * 5000)
UNREADABLE = {
    "sqlite": [
        LONG_NUMBER,
        ("created_at", "2026-99-99 00:00:00"),
        ("retired_at", 5),
        ("public_jwk", "[" * 900 + "]" * 900),
    ],
    "postgresql": [LONG_NUMBER, ("created_at", "infinity"), ("revoked_at", "-infinity")],
    "mysql": [LONG_NUMBER],
}


def status_of(row: Key) -> audit.HmacStatus:
    return row_hmac.status(Key.objects.get(pk=row.pk), conf.key_encryption_keys)


def set_with_sql(row: Key, **columns: Any) -> None:
    """Change columns with SQL, as an attacker does."""
    with connection.cursor() as cursor:
        for name, value in columns.items():
            cursor.execute(f"UPDATE instaccess_key SET {name} = %s WHERE id = %s", [value, row.pk])


class TestAKeyRowOfThisPackage:
    @pytest.fixture(autouse=True)
    def stopped_clock(self, clock):
        pass

    def test_every_key_row_is_authentic_throughout_the_key_lifecycle(self, clock, rsa_pool):
        provision.init()
        provision.generate(ENC)
        key_texts.import_key(public_pem(rsa_pool), use=SIG)
        lifecycle.activate(key_texts.import_key(public_pem(rsa_pool), use=ENC).kid)
        for _ in range(3):
            clock.shift(timedelta(days=30, microseconds=123_457))
            lifecycle.rotate(SIG)
        lifecycle.revoke(key_of(SIG, "current").kid)
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [NEW_KEK, "SECRET_KEY"]}):
            provision.reseal()

            assert {row.status for row in Key.objects.all()} == {"future", "current", "past", "revoked"}
            assert {status_of(row) for row in Key.objects.all()} == {audit.HmacStatus.AUTHENTIC}
            assert queries.examine()[1] == {}

    def test_key_row_with_times_in_any_time_zone_is_authentic_and_contains_milliseconds(self):
        """The app must store only milliseconds, because the HMAC covers times and `dumpdata` drops microseconds."""
        time = datetime(2026, 11, 23, 12, 0, 0, 123_457, tzinfo=timezone(timedelta(hours=5, minutes=45)))
        key = provision.generate(SIG, now=time)

        assert key.created_at == Key.objects.get(pk=key.pk).created_at == time - 457 * MICROSECOND
        assert status_of(key) is audit.HmacStatus.AUTHENTIC

    def test_a_public_key_that_is_nested_too_deeply_is_not_authentic(self):
        key = provision.generate(SIG)
        nested: list[Any] = []
        for _ in range(100_000):
            nested = [nested]
        key.public_jwk["n"] = nested

        assert row_hmac.status(key, conf.key_encryption_keys) is audit.HmacStatus.BROKEN

    @pytest.mark.parametrize("minutes", [0, 60], ids=["the first time", "the second time"])
    def test_key_row_with_a_time_that_occurs_twice_in_the_time_zone_of_the_database_is_authentic(self, minutes):
        """Use the hour when clocks in Berlin are set back, because MariaDB and SQLite store local times."""
        before = connection.settings_dict["TIME_ZONE"]
        set_zone("Europe/Berlin")
        try:
            time = datetime(2026, 10, 25, 0, 30, tzinfo=UTC) + timedelta(minutes=minutes)
            assert time.astimezone(ZoneInfo("Europe/Berlin")).hour == 2
            key = provision.generate(SIG, now=time)

            assert status_of(key) is audit.HmacStatus.AUTHENTIC
            assert Key.objects.get(pk=key.pk).created_at.timestamp() == key.created_at.timestamp()
        finally:
            set_zone(before)

    def test_a_key_is_authentic_for_any_order_of_the_members_of_its_public_key(self):
        key = provision.generate(SIG)
        key.public_jwk = dict(reversed(key.public_jwk.items()))

        assert row_hmac.status(key, conf.key_encryption_keys) is audit.HmacStatus.AUTHENTIC

    def test_key_row_that_was_restored_from_a_backup_is_authentic_again(self):
        key = provision.generate(SIG)
        [backup] = Key.objects.filter(pk=key.pk).values("status", "created_at", "mac")
        Key.objects.filter(pk=key.pk).update(status="past", created_at=START - MICROSECOND)
        assert status_of(key) is audit.HmacStatus.BROKEN

        Key.objects.filter(pk=key.pk).update(**backup)
        assert status_of(key) is audit.HmacStatus.AUTHENTIC


class TestTheColumnsThatTheHmacCovers:
    # Exclude `current_use`, because the database computes this column.
    @pytest.mark.parametrize(
        "name", sorted({field.name for field in Key._meta.concrete_fields} - {"id", "mac", "current_use"})
    )
    def test_k17_the_hmac_of_a_key_covers_every_column_except_id_hmac_and_current_use(self, name):
        """If you add a column to the model, add the column to `canonical_bytes`, under a new format label.

        The package must also accept the HMACs of existing rows, which have the old label.
        """
        row = Key(kid="a", use=SIG, alg="a", status="past", public_jwk={"n": "a"}, sealed_private_jwk="a")
        row.created_at = row.activated_at = row.retired_at = row.revoked_at = START
        before = row_hmac.canonical_bytes(row)
        setattr(row, name, None)

        assert row_hmac.canonical_bytes(row) != before


class TestAModifiedKeyRow:
    @pytest.fixture
    def row(self, clock) -> Key:
        provision.init()
        return key_of(SIG, "current")

    @pytest.mark.parametrize(
        "changes",
        [
            {"kid": "another-kid"},
            {"use": "enc"},
            {"use": "odd"},
            {"alg": ""},
            {"status": "past"},
            {"status": "revoked"},
            {"status": "odd"},
            {"sealed_private_jwk": ""},
            {"created_at": START - MICROSECOND},
            {"activated_at": START + MICROSECOND},
            {"activated_at": None},
            {"retired_at": START},
            {"revoked_at": START},
            {"mac": ""},
            {"mac": "x"},
            {"mac": "."},
        ],
        ids=str,
    )
    def test_k17_hmac_detects_a_change_of_any_covered_column_of_a_key_row(self, row, changes):
        # Delete the encryption keys, because the database refuses a second current encryption key when the test
        # changes `use`.
        Key.objects.filter(use=ENC).delete()
        Key.objects.filter(pk=row.pk).update(**changes)

        with pytest.raises(KeyAltered):
            row_hmac.check(Key.objects.get(pk=row.pk), conf.key_encryption_keys)

    @pytest.mark.parametrize("member", ["n", "e", "kid", "use", "kty", "extra"])
    def test_k17_hmac_detects_a_change_of_any_member_of_the_public_key(self, row, member, rsa_pool):
        other = rsa_pool.take()["n"] if member == "n" else "AQAC"
        Key.objects.filter(pk=row.pk).update(public_jwk={**row.public_jwk, member: other})

        assert status_of(row) is audit.HmacStatus.BROKEN

    @pytest.mark.parametrize("value", [None, [], {}, "text", 5, {"n": {"n": [1.5]}}])
    def test_k17_hmac_detects_a_value_that_is_not_a_public_key(self, row, value):
        set_with_sql(row, public_jwk=json.dumps(value))

        assert status_of(row) is audit.HmacStatus.BROKEN

    def test_k17_hmac_detects_a_sealed_private_key_that_was_added_again(self, row, clock):
        """The app must detect the private key, because an attacker can copy an erased private key from a backup."""
        past = lifecycle.rotate(SIG, force=True).retired
        sealed = past.sealed_private_jwk
        clock.shift(timedelta(days=1))
        lifecycle.rotate(SIG)
        Key.objects.filter(pk=past.pk).update(sealed_private_jwk=sealed)

        assert status_of(past) is audit.HmacStatus.BROKEN

    def test_k17_the_hmac_of_another_row_does_not_authenticate_a_key(self, row):
        Key.objects.filter(pk=row.pk).update(mac=key_of(SIG, "future").mac)

        assert status_of(row) is audit.HmacStatus.BROKEN

    def test_k17_a_string_that_is_not_an_hmac_does_not_authenticate_a_key(self, row):
        Key.objects.filter(pk=row.pk).update(mac=row.mac.partition(".")[0] + ".\N{PILE OF POO}")

        assert status_of(row) is audit.HmacStatus.BROKEN

    def test_k17_an_hmac_for_an_audit_row_does_not_authenticate_a_key(self, row):
        mac = audit.authenticate(row_hmac.canonical_bytes(row), conf.key_encryption_keys)
        Key.objects.filter(pk=row.pk).update(mac=mac)

        assert status_of(row) is audit.HmacStatus.BROKEN

    def test_k7_a_key_row_with_a_modified_sealed_key_is_authentic(self, row):
        """The app must keep the public key usable, because the sealed private key has its own authentication."""
        Key.objects.filter(pk=row.pk).update(sealed_private_jwk="damaged")

        assert status_of(row) is audit.HmacStatus.AUTHENTIC

    def test_error_for_a_modified_key_row_names_the_command_that_revokes_the_key(self, row):
        Key.objects.filter(pk=row.pk).update(mac="")

        with pytest.raises(KeyAltered) as caught:
            row_hmac.check(Key.objects.get(pk=row.pk), conf.key_encryption_keys)
        assert f"`python manage.py instaccess_keys revoke --kid {row.kid}`" in caught.value.detail
        assert caught.value.code == "key_altered"

    @pytest.mark.parametrize("kid", ["x; rm -rf ~", "$(id)", "\x1b[2J", "", "a/b", "\N{PILE OF POO}"])
    def test_error_for_a_modified_key_row_contains_no_kid_that_a_shell_or_a_terminal_could_interpret(self, row, kid):
        Key.objects.filter(pk=row.pk).update(kid=kid)

        with pytest.raises(KeyAltered) as caught:
            row_hmac.check(Key.objects.get(pk=row.pk), conf.key_encryption_keys)
        assert f"delete the row with id {row.pk} from the table instaccess_key with SQL" in caught.value.detail
        assert "revoke" not in caught.value.detail
        assert not kid or kid not in caught.value.detail


class TestAnUnreadableKeyRow:
    @pytest.fixture
    def unreadable(self, clock) -> Key:
        provision.init()
        row = key_of(SIG, "future")
        set_with_sql(row, public_jwk=LONG_NUMBER[1])
        return row

    def test_k17_other_keys_are_read_if_one_key_row_is_unreadable(self, unreadable):
        for name, value in UNREADABLE[connection.vendor]:
            set_with_sql(unreadable, **{"public_jwk": "{}", name: value})
            rows, errors = queries.examine()

            assert unreadable.pk not in {row.pk for row in rows}
            assert len(rows) == 2
            assert list(errors) == [unreadable.pk]
            assert f"delete the row with id {unreadable.pk}" in errors[unreadable.pk].detail

    def test_k17_health_reports_the_id_of_the_unreadable_row_and_lists_the_other_keys(self, unreadable):
        state = health.load_health(since=START, now=START)

        assert (state.altered, state.unreadable) == ((), (unreadable.pk,))
        assert {key.status for key in state.keys} == {"current"}

    def test_k17_another_key_can_be_revoked_if_one_key_row_is_unreadable(self, unreadable):
        done = lifecycle.revoke(key_of(ENC, "current").kid)

        assert done.successor is not None

    def test_k17_a_future_key_with_an_unreadable_row_does_not_become_current(self, unreadable, clock):
        clock.shift(timedelta(days=30))
        rotated = lifecycle.rotate(SIG)

        assert (rotated.activated, rotated.generated.status) == (None, "future")


class TestTheKeyEncryptionKey:
    @pytest.fixture(autouse=True)
    def keys_of_the_old_key_encryption_key(self, settings, clock):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}
        provision.init()

    def named_keks(self) -> set[str]:
        return {row.mac.partition(".")[0] for row in Key.objects.all()}

    def test_o6_key_row_cannot_be_checked_if_its_key_encryption_key_is_missing(self, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK]}

        with pytest.raises(UnsealError, match=r"INSTACCESS\['KEY_ENCRYPTION_KEYS'\]") as caught:
            row_hmac.check(key_of(ENC, "current"), conf.key_encryption_keys)
        assert caught.value.code == "kek_missing"

    def test_o7_changed_key_row_is_authentic_for_processes_without_the_new_key_encryption_key(self, settings):
        """Check the row with the old settings, because some processes have the old settings during a deployment."""
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}
        rotated = lifecycle.rotate(SIG, force=True)
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}

        for row in (rotated.retired, rotated.activated):
            assert status_of(row) is audit.HmacStatus.AUTHENTIC
        assert status_of(rotated.generated) is audit.HmacStatus.UNKNOWN

    def test_o7_reseal_recomputes_the_hmacs_of_all_rows_even_of_rows_without_a_private_key(self, settings, rsa_pool):
        key_texts.import_key(public_pem(rsa_pool), use=ENC)
        lifecycle.revoke(key_of(SIG, "current").kid)
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}
        provision.reseal()

        assert self.named_keks() == {kek_id(conf.key_encryption_keys[0])}
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK]}
        assert queries.examine()[1] == {}

    @pytest.mark.parametrize("changes", [{"status": "past"}, {"mac": ""}, {"alg": "x"}])
    def test_k17_reseal_names_a_modified_key_row_and_computes_no_hmac_for_the_row(self, settings, changes):
        modified = key_of(SIG, "current")
        Key.objects.filter(pk=modified.pk).update(**changes)
        before = Key.objects.filter(pk=modified.pk).values().get()
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}

        with pytest.raises(KeyAltered, match=modified.kid):
            provision.reseal()
        assert Key.objects.filter(pk=modified.pk).values().get() == before
        others = Key.objects.exclude(pk=modified.pk)
        assert {row.mac.partition(".")[0] for row in others} == {kek_id(conf.key_encryption_keys[0])}
