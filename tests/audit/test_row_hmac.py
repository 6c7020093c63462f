"""Tests of the HMAC of audit rows: the columns that the HMAC covers, and the detection of modified rows."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.common import base64url_decode

from instaccess.audit import revocation, row_hmac, rows
from instaccess.audit.row_hmac import HmacStatus
from instaccess.conf import KeyEncryptionKey, conf
from instaccess.keys import keks_for_revocation
from instaccess.models import IssuedToken

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MODIFIED = {
    "id": 100_000,
    "jti": uuid.UUID(int=1),
    "user_uuid": "another user",
    "real_user_uuid": "another real user",
    "client_id": "another",
    "access_token_pk": "99",
    "account_uuid": "another",
    "canvas_domain": "another.example.edu",
    "signing_kid": "another",
    "encryption_kid": "",
    "ip_address": "2001:db8::1",
    "user_agent": "",
    "issued_at": timezone.now() - timedelta(days=3),
    "expires_at": timezone.now() + timedelta(microseconds=1),
    "revoked_at": timezone.now(),
    "revoked_by": "mallory",
    "revocation_reason": "none",
}
# The HMAC covers the uuids and the client id instead of the foreign keys, because Django sets a foreign key to NULL
# when the user or the application is deleted.
FOREIGN_KEYS = {"user", "real_user", "application"}
# A separate HMAC covers the user names, because an erasure of names must not change the HMAC of the row.
NAMES = {"user_name", "real_user_name", "names_mac"}


def check_hmac(token: IssuedToken) -> HmacStatus:
    return row_hmac.check(row_hmac.canonical_bytes(token), token.mac, conf.key_encryption_keys)


@pytest.mark.django_db
class TestTheHmacOfARow:
    def test_hmac_of_a_row_matches_after_the_row_was_stored_and_loaded(self, row):
        made = row(
            ip_address="2001:DB8:0::0001", user_agent="Ünï\u2028code \U0001f511 'quoted'", revoked_at=timezone.now()
        )

        assert check_hmac(IssuedToken.objects.get(pk=made.pk)) is HmacStatus.AUTHENTIC

    def test_hmac_of_a_row_matches_every_notation_of_an_ip_address(self, row):
        made = row(ip_address="::ffff:192.0.2.1")

        made.ip_address = "::FFFF:c000:0201"
        assert check_hmac(made) is HmacStatus.AUTHENTIC

    @given(address=st.ip_addresses())
    def test_hmac_of_a_row_covers_the_packed_bytes_of_an_ip_address(self, address):
        assert row_hmac._address(str(address)) == address.packed.hex()

    @pytest.mark.parametrize(
        "text", ["1.2.3", "01.2.3.4", "1.2.3.4 ", "::1::", "fe80::1%eth0", "1.2.3.4\0", "١.2.3.4"]
    )
    def test_hmac_of_a_row_covers_an_invalid_ip_address_as_a_string(self, text):
        assert row_hmac._address(text) == f"no address: {text}"

    @pytest.mark.parametrize("column", sorted(MODIFIED))
    def test_a6_hmac_of_a_row_does_not_match_after_a_column_was_modified(self, row, column):
        made = row()
        IssuedToken.objects.filter(pk=made.pk).update(**{column: MODIFIED[column]})

        assert check_hmac(IssuedToken.objects.get()) is HmacStatus.BROKEN

    def test_hmac_of_a_row_covers_every_column_except_mac_names_and_foreign_keys(self):
        columns = {field.name for field in IssuedToken._meta.fields}

        assert columns - set(MODIFIED) == FOREIGN_KEYS | NAMES | {"mac"}

    def test_hmac_of_a_row_matches_after_user_and_application_were_deleted(self, row, user, application):
        made = row()
        application.delete()
        user.delete()

        assert check_hmac(IssuedToken.objects.get(pk=made.pk)) is HmacStatus.AUTHENTIC

    @pytest.mark.parametrize("mac", ["", ".", "x", "x.", "é.é", "\ud800.\ud800"])
    def test_hmac_of_a_row_does_not_match_if_the_hmac_is_malformed(self, row, mac):
        made = row()
        made.mac = mac if "." not in mac else f"{made.mac.partition('.')[0]}{mac[mac.index('.') :]}"

        assert check_hmac(made) is HmacStatus.BROKEN

    def test_hmac_of_a_row_is_unknown_if_its_key_encryption_key_is_not_configured(self, row, settings):
        made = row()
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}
        assert check_hmac(made) is HmacStatus.UNKNOWN

        settings.INSTACCESS["KEY_ENCRYPTION_KEYS"].append("SECRET_KEY")
        assert check_hmac(made) is HmacStatus.AUTHENTIC

    def test_hmac_of_a_row_is_hmac_sha256_with_a_derived_key(self, row):
        made = row()
        (kek,) = conf.key_encryption_keys
        key = HKDF(SHA256(), 32, salt=None, info=b"instaccess audit authentication v1").derive(kek.reveal())

        expected = hmac.new(key, row_hmac.canonical_bytes(made), hashlib.sha256).digest()
        assert base64url_decode(made.mac.partition(".")[2]) == expected


@pytest.mark.django_db
class TestTheHmacAfterARevocation:
    def test_hmac_of_a_row_is_recomputed_after_a_revocation(self, row, user):
        made = row()
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost", by=user)

        after = IssuedToken.objects.get(pk=made.pk)
        assert check_hmac(after) is HmacStatus.AUTHENTIC
        assert after.mac != made.mac

    def test_a6_hmac_of_a_row_does_not_match_if_the_row_was_modified_before_a_revocation(self, row):
        made = row()
        IssuedToken.objects.filter(pk=made.pk).update(ip_address="198.51.100.1")
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost")

        after = IssuedToken.objects.get(pk=made.pk)
        assert after.revoked_at is not None
        assert check_hmac(after) is HmacStatus.BROKEN

    def test_revoke_revokes_tokens_even_if_the_setting_key_encryption_keys_is_invalid(self, row, settings, caplog):
        made = row()
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["too short"]}

        assert revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost") == 1
        assert IssuedToken.objects.get(pk=made.pk).revoked_at is not None
        assert "KEY_ENCRYPTION_KEYS" in caplog.text

    def test_audit_row_contains_the_name_of_the_revoking_user_after_that_user_was_deleted(
        self, row, user, django_user_model
    ):
        operator = django_user_model.objects.create_user("grace")
        made = row()
        revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="laptop lost", by=operator)
        operator.delete()

        assert IssuedToken.objects.get(pk=made.pk).revoked_by == "grace"

    def test_hmacs_of_rows_are_recomputed_after_a_revocation_of_more_rows_than_one_batch(self, row):
        for _ in range(revocation.BATCH + 3):
            row()

        assert (
            revocation.revoke(rows.revocable_tokens(), keks=keks_for_revocation(), reason="all")
            == revocation.BATCH + 3
        )
        assert {check_hmac(each) for each in IssuedToken.objects.all()} == {HmacStatus.AUTHENTIC}


def test_canonical_bytes_and_hmac_of_a_row_never_change() -> None:
    """Compare the bytes and the HMAC with literals.

    A changed encoding with the same label would invalidate the HMACs of existing rows. A new encoding needs a new
    label.
    """
    values: dict[str, Any] = {
        "id": 1_900_000_000_123_456_789,
        "jti": uuid.UUID("94b8b54d-aff3-4846-ab72-8345207a2d20"),
        "user_uuid": "ü",
        "account_uuid": "a",
        "canvas_domain": "d",
        "signing_kid": "s",
        "ip_address": "192.0.2.1",
        "issued_at": EPOCH + timedelta(seconds=1),
        "expires_at": EPOCH + timedelta(seconds=3601, microseconds=5),
    }

    data = row_hmac.canonical_bytes(IssuedToken(**values))

    assert data == (
        rb'["instaccess audit row 1",1900000000123456789,"94b8b54daff34846ab728345207a2d20","\u00fc","","","","a",'
        rb'"d","s","","c0000201","",1000000,3601000005,null,"",""]'
    )
    mac = row_hmac.authenticate(data, [KeyEncryptionKey(bytes(range(32)))])
    assert mac == "BvHe6PZZiVlh.Xxli_LZYe_uhAtV49v-c6x2aIhsLxUsUx9ZFbyRRAGk"
