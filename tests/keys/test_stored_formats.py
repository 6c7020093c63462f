"""Tests that compare the stored formats of keys with literals.

If one of these tests fails, the package would refuse every stored key after an upgrade. A new format needs a new
label, and the package must still read the old format.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from jwcrypto.common import base64url_decode

from instaccess import audit
from instaccess.conf import KeyEncryptionKey, kek_id
from instaccess.conf.key_encryption import derive_kek
from instaccess.keys import row_hmac, sealing
from instaccess.models import Key

KEK = KeyEncryptionKey(bytes(range(32)))
CREATED = datetime(2026, 3, 2, 12, 0, 0, 123_000, tzinfo=UTC)
KID = "jeFH_0S_FWLEIgIjkynUnjJdQPj6Y5UBGEBKcYl0PQs"
# The key has only 1024 bits, because a sealed key of 2048 bits would make this literal even longer.
SEALED = (
    "eyJhbGciOiAiQTI1NktXIiwgImVuYyI6ICJBMjU2R0NNIiwgImN0eSI6ICJqd2sranNvbiIsICJraWQiOiAiamVGSF8wU19GV0xFSWdJamt5"
    "blVuakpkUVBqNlk1VUJHRUJLY1lsMFBRcyIsICJ1c2UiOiAiZW5jIiwgImtlayI6ICJCdkhlNlBaWmlWbGgifQ.fuF_ZzMAmyEPgIEVgVfoE"
    "VOV5ngy8-ujqOYTOb_qHJKivOvtWKSWIQ.jQOf_YG9F5b-pDHv.VI_WYNMBhi53nMOyJ7Y9x3smZsMSmbvVIxIGyYHcEjgvp0tKhSlCQq-iF"
    "y9C2bbdHQjqPtGZ-VuqcHiVXaEr3ieG5d_UEwf98Y0kBS6vjUzsjuG0ccuZCKKvD9Wls29Rsa_tvn2UsR-a1COz2N08z6QTwh457RFOuWT2O"
    "i6iPbJQe4FtH94GcYAr1eldnb6n2QvyuQ93mOU5oJAC6hfhv201PUb-q2qRnF319ocxGoz-TG5RK5ShvEvZKhBhqzmHPYsaC0irhNTFnKaJO"
    "a_kO1hlVW6NSCSnw4JKD6DSw15-EzJQTHpQ3LSs6EawAkbpJsEMLDsuagptcVCywL6c3p77pnoBdcyuX1MiqpQ0otDg55q8tXZMYzGMg_-Bu"
    "w985S57uzMIZX9WGe9c-5wtfJl21pCyOiCLTGIG9Annhlvi52mmfplas6_5dRD8y3XBh6M8sxAEvlQghmFerQak5Mj4NRXItCmJ8-Ca0vdZE"
    "B5_RNLT-wuRwzZHh4frzok9N7VDOTXxorc9FzV9k2qXDPz7EnezSKikv5EeT4-SOf6IZ1gkWJWS-knH1NzCEc-BnoZ5g5_m6b8WQE9ewQsUN"
    "7N37_LcriHfI9xNZQeJDb-FadjiPhFrt2JGiWNNuZkw-3eevpP8jIxVRptlZkotq2FBXcsFPzLIFuj-DLNL7xaonFM-nRODPFIAhzUkyAlyB"
    "dzlUfIGrSbEY6scrVxrc9DZDDMorqHkVplfIHIz1HMfCvUXrJezP0ML0EOgivLtPz9lhD0UFZpffU6X0__GbwQNrWdlqrUI6riIE1Iql3Nx8"
    "8WvDjmp0iXIoRwIjayhgDcUsNLlhBOTdNvgRWzRX0WTnQbSdFpQxEyl301BnEETB_yCtceFyERKvDdxJpUPoEt4vTU38VCGAYjorZWRFRO-K"
    "oP05_W8IdsmOt8DB0i2mlbsGS1JeEwpqWndf9JYsUI-seA0keV8K8EOwplup9-HaxvPAxBnt4czB6Bv8t_DIWWHevjSKy-x-wF9GtSIb12C-"
    "AcycXCwrv6JXBfQsXqlnfvdtJVaM5gOvDGQY8gbbZOaf1xpvcw8nGrdjqPewX6YctXFtKu12YD73cNOKFj0Gp8QalyuCEyJNLKcp_I.lNi-d"
    "GBe5b28ljTJ81pa5g"
)


def row() -> Key:
    return Key(
        kid="k-1_A",
        use="sig",
        alg="RS256",
        status="current",
        public_jwk={"kty": "RSA", "n": "AQAB", "e": "AQAB", "ü": "é"},
        sealed_private_jwk="x",
        created_at=CREATED,
        activated_at=CREATED + timedelta(days=1),
    )


class TestARowOfAKey:
    def test_canonical_bytes_of_a_key_row_never_change(self):
        assert row_hmac.canonical_bytes(row()) == (
            rb'["instaccess key row 1","k-1_A","sig","RS256","current",'
            rb'{"e":"AQAB","kty":"RSA","n":"AQAB","\u00fc":"\u00e9"},true,'
            rb"1772452800123000,1772539200123000,null,null]"
        )

    def test_hmac_of_a_key_row_never_changes(self):
        stored = row()
        stored.mac = "BvHe6PZZiVlh.KT7g1xymSbUCtrX_UmZ-lvKfYrFpEO4mtsz7FYhWeWU"

        assert row_hmac.authenticate(row(), [KEK]) == stored.mac
        assert row_hmac.status(stored, [KEK]) is audit.HmacStatus.AUTHENTIC


class TestASealedKey:
    def test_a_key_that_an_earlier_version_has_sealed_can_be_unsealed(self):
        assert sealing.unseal(SEALED, kid=KID, use="enc", keks=[KEK]).thumbprint() == KID

    def test_header_of_a_sealed_key_never_changes(self):
        key = sealing.unseal(SEALED, kid=KID, use="enc", keks=[KEK])

        header = json.loads(base64url_decode(sealing.seal(key, kid=KID, use="enc", keks=[KEK]).partition(".")[0]))
        assert header == {
            "alg": "A256KW",
            "enc": "A256GCM",
            "cty": "jwk+json",
            "kid": KID,
            "use": "enc",
            "kek": "BvHe6PZZiVlh",
        }


class TestAKeyEncryptionKey:
    def test_id_of_a_key_encryption_key_never_changes(self):
        assert kek_id(KEK) == "BvHe6PZZiVlh"

    def test_key_encryption_key_that_is_derived_from_a_secret_key_never_changes(self):
        assert kek_id(derive_kek("a secret key")) == "FtD6JOsk0ykq"

    def test_hmac_of_a_key_encryption_key_never_changes(self):
        assert KEK.hmac(b"abc", info=b"purpose").hex() == (
            "0c642a1f959bacce3adfbb923212908231da57990af8d661ac8b50440f178548"
        )
