"""Tests for importing and exporting keys."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from instaccess.exceptions import KeyAltered, KeyRefused, KeyUnavailable
from instaccess.issuer import issuing
from instaccess.keys import lifecycle, provision, store
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.tokens import jose
from instaccess.trust import material
from tests.keys.helpers import BOTH_USES, ENC, SIG, rows, slots, to_public_pem
from tests.support import key_texts

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

BOTH_FORMATS = pytest.mark.parametrize("file_format", ["pem", "jwk"])


def private_pem(key: Any) -> str:
    return key_texts.private_text(key, file_format="pem")


class TestImportingAKey:
    @BOTH_USES
    @BOTH_FORMATS
    def test_import_stores_a_public_key_as_a_future_key(self, use, file_format, pair):
        text = material.to_text(pair, file_format=file_format)
        row = key_texts.import_key(text, use=use, now=NOW)

        assert (row.kid, row.use, row.status, row.created_at) == (pair.thumbprint(), use, "future", NOW)
        assert row.sealed_private_jwk == ""

    @BOTH_USES
    @BOTH_FORMATS
    def test_import_stores_a_private_key_if_with_private_is_true(self, use, file_format, pair):
        text = key_texts.private_text(pair, file_format=file_format)
        row = key_texts.import_key(text.encode(), use=use, with_private=True)

        assert row.has_private
        assert provision.export_private(row, file_format="pem").reveal() == private_pem(pair)

    @pytest.mark.parametrize(("use", "power"), [(SIG, "forge"), (ENC, "decrypt")])
    def test_k6_import_refuses_a_private_key_and_gives_a_reason_unless_with_private_is_true(self, use, power, pair):
        with pytest.raises(KeyRefused, match=f"an attacker with the private key can {power} every token") as caught:
            key_texts.import_key(private_pem(pair), use=use)
        assert "--with-private" in caught.value.detail
        assert not Key.objects.exists()

    def test_import_stores_a_public_key_even_if_with_private_is_true(self, pair):
        assert not key_texts.import_key(to_public_pem(pair), use=ENC, with_private=True).has_private

    @BOTH_USES
    def test_k11_import_refuses_a_key_that_is_stored_already(self, use, pair):
        key_texts.import_key(to_public_pem(pair), use=use)
        before = rows()

        with pytest.raises(KeyRefused, match=f"already stored for use '{use}'"):
            key_texts.import_key(to_public_pem(pair), use=use)
        assert rows() == before

    def test_k6_import_refuses_a_key_that_is_stored_for_the_other_use(self, pair):
        key_texts.import_key(private_pem(pair), use=SIG, with_private=True)

        with pytest.raises(KeyRefused, match="a key must have only one use"):
            key_texts.import_key(to_public_pem(pair), use=ENC)
        assert slots() == [("sig", "future")]

    def test_k11_import_refuses_a_revoked_key(self, pair):
        kid = key_texts.import_key(private_pem(pair), use=SIG, with_private=True).kid
        lifecycle.revoke(kid)

        with pytest.raises(KeyRefused, match="already stored"):
            key_texts.import_key(private_pem(pair), use=SIG, with_private=True)

    def test_k11_the_database_refuses_a_second_row_with_the_same_kid(self, pair):
        key_texts.import_key(to_public_pem(pair), use=SIG)

        with pytest.raises(Exception, match=r"(?i)unique|duplicate"), store.locked():
            store.store(pair, use=ENC, status=Key.Status.FUTURE, now=NOW)
        assert slots() == [("sig", "future")]

    def test_k6_import_does_not_store_a_refused_key(self):
        with pytest.raises(KeyRefused, match="generate"):
            key_texts.import_key('{"generate": "RSA", "size": 2048}', use=SIG, with_private=True)
        assert not Key.objects.exists()


class TestExportingAKey:
    @BOTH_USES
    @BOTH_FORMATS
    def test_an_exported_public_key_can_be_imported(self, use, file_format, rsa_pool):
        row = provision.generate(use)
        text = provision.export(row, file_format=file_format)
        row.delete()

        assert "PRIVATE" not in text
        again = key_texts.import_key(text, use=use)
        assert (again.kid, again.public_jwk, again.has_private) == (row.kid, row.public_jwk, False)

    @BOTH_USES
    @BOTH_FORMATS
    def test_an_exported_private_key_can_be_imported_and_its_tokens_are_accepted(
        self, use, file_format, user, initial_keys
    ):
        lifecycle.activate(provision.generate(use).kid, force=True)
        row, token = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())
        key = Key.objects.get(use=use, status="current")
        text = provision.export_private(key, file_format=file_format).reveal()
        Key.objects.filter(pk=key.pk).delete()
        key_texts.import_key(text, use=use, with_private=True)

        ring = keys_ring.load()
        signed, _ = jose.decrypt(token, ring.decryption_keys())
        assert jose.verify(signed, ring.verification_keys())[0]["jti"] == str(row.jti)

    def test_export_of_a_private_key_is_logged(self, caplog):
        row = provision.generate(SIG)
        provision.export_private(row, file_format="pem")

        assert f"private key of key {row.kid} exported" in caplog.text

    def test_export_refuses_a_private_key_that_is_not_stored(self, pair):
        row = key_texts.import_key(to_public_pem(pair), use=ENC)

        with pytest.raises(KeyUnavailable, match="only the public key"):
            provision.export_private(row, file_format="pem")

    @BOTH_FORMATS
    def test_export_refuses_a_modified_public_key(self, file_format, rsa_pool):
        """The app must refuse the export, because tokens could be encrypted for a public key of an attacker."""
        row = provision.generate(ENC)
        row.public_jwk = {**row.public_jwk, "n": rsa_pool.take()["n"]}

        with pytest.raises(KeyUnavailable, match="was modified"):
            provision.export(row, file_format=file_format)

    def test_export_refuses_the_private_key_of_a_modified_row(self):
        row = provision.generate(SIG)
        row.alg = "odd"

        with pytest.raises(KeyAltered, match="was modified"):
            provision.export_private(row, file_format="pem")

    @pytest.mark.parametrize("value", [{}, {"kty": "RSA"}, {"kty": "RSA", "n": 5, "e": "AQAB"}, [], None, "text"])
    def test_export_refuses_an_invalid_public_key(self, value):
        row = provision.generate(ENC)
        row.public_jwk = value

        with pytest.raises(KeyUnavailable, match="was modified"):
            provision.export(row, file_format="pem")
