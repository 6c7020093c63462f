"""Tests for sealing: private keys that can be unsealed, and private keys that are refused."""

from __future__ import annotations

import base64
import json
import os
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from instaccess.conf import KeyEncryptionKey, kek_id
from instaccess.exceptions import KeyUnavailable, UnsealError
from instaccess.keys import sealing
from instaccess.tokens import PrivateKey

FIRST, SECOND, THIRD = (KeyEncryptionKey(bytes([n]) * 32) for n in (1, 2, 3))
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


@pytest.fixture
def private(rsa_pool: Any) -> JWK:
    return rsa_pool.take("sig")


@pytest.fixture
def kid(private: JWK) -> str:
    return private.thumbprint()


@pytest.fixture
def sealed(private: JWK, kid: str) -> str:
    return sealing.seal(PrivateKey(private), kid=kid, use="sig", keks=[FIRST])


def header_of(sealed: str) -> dict[str, str]:
    first = sealed.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))


def refusal(sealed: str, *, kid: str, use: str = "sig", keks: tuple[KeyEncryptionKey, ...] = (FIRST,)) -> UnsealError:
    with pytest.raises(UnsealError) as caught:
        sealing.unseal(sealed, kid=kid, use=use, keks=keks)
    return caught.value


def seal_with_header(kek: KeyEncryptionKey, header: dict[str, str], plaintext: str) -> str:
    jwe = JWE(plaintext, json.dumps(header), algs=[header["alg"], header["enc"]])
    jwe.add_recipient(JWK(kty="oct", k=base64.urlsafe_b64encode(kek.reveal()).rstrip(b"=").decode()))
    return str(jwe.serialize(compact=True))


class TestASealedKey:
    def test_unseal_returns_the_private_key_of_a_sealed_key(self, sealed, private, kid):
        unsealed = sealing.unseal(sealed, kid=kid, use="sig", keks=[FIRST])

        assert unsealed.reveal().export_private() == private.export_private()

    def test_the_header_of_a_sealed_key_contains_kid_use_and_the_id_of_the_key_encryption_key(self, sealed, kid):
        assert header_of(sealed) == {
            "alg": "A256KW",
            "enc": "A256GCM",
            "cty": "jwk+json",
            "kid": kid,
            "use": "sig",
            "kek": kek_id(FIRST),
        }

    def test_a_sealed_key_contains_no_unencrypted_private_member(self, sealed, private):
        raw = b"".join(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in sealed.split("."))

        for member in PRIVATE_MEMBERS:
            assert private[member] not in sealed
            assert private[member].encode() not in raw
        assert FIRST.reveal() not in raw

    def test_sealing_a_key_twice_gives_different_sealed_keys(self, sealed, private, kid):
        assert sealing.seal(PrivateKey(private), kid=kid, use="sig", keks=[FIRST]) != sealed

    def test_unseal_accepts_the_longest_key_that_can_be_imported(self):
        # An import accepts keys of up to 4096 bits.
        private = JWK.generate(kty="RSA", size=4096, use="enc")
        kid = private.thumbprint()

        sealed = sealing.seal(PrivateKey(private), kid=kid, use="enc", keks=[FIRST])

        assert sealing.unseal(sealed, kid=kid, use="enc", keks=[FIRST]).thumbprint() == kid

    @pytest.mark.parametrize(("size", "accepted"), [(16_384, True), (16_385, False)])
    def test_unseal_decompresses_at_most_sixteen_kibibytes(self, size, accepted, private, kid):
        header = {"alg": "A256KW", "enc": "A256GCM", "zip": "DEF", "kid": kid, "use": "sig", "kek": kek_id(FIRST)}
        sealed = seal_with_header(FIRST, header, private.export_private().ljust(size))

        if accepted:
            assert sealing.unseal(sealed, kid=kid, use="sig", keks=[FIRST]).thumbprint() == kid
        else:
            assert refusal(sealed, kid=kid).code == "seal_broken"


class TestTheKeyEncryptionKeys:
    def test_the_first_key_encryption_key_seals_private_keys(self, private, kid):
        sealed = sealing.seal(PrivateKey(private), kid=kid, use="sig", keks=[SECOND, FIRST])

        assert sealing.sealed_under(sealed) == kek_id(SECOND)
        assert sealing.unseal(sealed, kid=kid, use="sig", keks=[SECOND]).thumbprint() == kid

    @pytest.mark.parametrize("keks", [(FIRST,), (SECOND, FIRST), (THIRD, SECOND, FIRST)])
    def test_unseal_finds_the_right_key_encryption_key_at_any_position(self, keks, sealed, kid):
        assert sealing.unseal(sealed, kid=kid, use="sig", keks=keks).thumbprint() == kid

    @pytest.mark.parametrize("keks", [(), (SECOND,), (SECOND, THIRD)])
    def test_o6_a_lost_key_encryption_key_raises_an_error_that_names_the_settings(self, keks, sealed, kid):
        error = refusal(sealed, kid=kid, keks=keks)

        assert error.code == "kek_missing"
        assert isinstance(error, KeyUnavailable)
        assert "KEY_ENCRYPTION_KEYS" in error.detail
        assert "SECRET_KEY_FALLBACKS" in error.detail
        assert kid in error.detail

    def test_the_id_of_a_key_encryption_key_does_not_reveal_the_key(self):
        ids = {kek_id(kek) for kek in (FIRST, SECOND, THIRD)}

        assert len(ids) == 3
        assert all(len(value) == 12 and set(value) <= set(ALPHABET) for value in ids)
        assert kek_id(FIRST) == kek_id(KeyEncryptionKey(FIRST.reveal()))


class TestASealedKeyInTheWrongPlace:
    def test_k7_unseal_refuses_a_sealed_key_in_another_row(self, sealed, rsa_pool):
        rsa_pool.take()
        other = rsa_pool.take().thumbprint()

        error = refusal(sealed, kid=other)
        assert error.code == "seal_broken"
        assert other in error.detail

    def test_k7_unseal_refuses_a_sealed_key_for_another_use(self, sealed, kid):
        assert refusal(sealed, kid=kid, use="enc").code == "seal_broken"

    def test_k7_unseal_refuses_sealed_keys_that_were_swapped_between_rows(self, rsa_pool):
        private, kids = [rsa_pool.take_private("sig"), rsa_pool.take_private("sig")], []
        for key in private:
            kids.append(key.thumbprint())
        first, second = (
            sealing.seal(key, kid=kid, use="sig", keks=[FIRST]) for key, kid in zip(private, kids, strict=True)
        )

        assert refusal(second, kid=kids[0]).code == "seal_broken"
        assert refusal(first, kid=kids[1]).code == "seal_broken"

    def test_k7_unseal_refuses_a_sealed_key_whose_header_names_another_key(self, private, rsa_pool):
        another = rsa_pool.take("sig")

        for key, other in ((private, another), (another, private)):
            kid = key.thumbprint()
            header = {"alg": "A256KW", "enc": "A256GCM", "kid": kid, "use": "sig", "kek": kek_id(FIRST)}
            forged = seal_with_header(FIRST, header, other.export_private())

            assert refusal(forged, kid=kid).code == "seal_broken"

    @pytest.mark.parametrize("missing", ["kid", "use"])
    def test_k7_unseal_refuses_a_sealed_key_without_kid_or_use(self, missing, private, kid):
        header = {"alg": "A256KW", "enc": "A256GCM", "kid": kid, "use": "sig", "kek": kek_id(FIRST)}
        del header[missing]

        assert refusal(seal_with_header(FIRST, header, private.export_private()), kid=kid).code == "seal_broken"

    @pytest.mark.parametrize(
        ("alg", "enc"), [("A256KW", "A128CBC-HS256"), ("dir", "A256GCM"), ("A256GCMKW", "A256GCM")]
    )
    def test_unseal_refuses_a_sealed_key_with_the_wrong_algorithm(self, alg, enc, private, kid):
        header = {"alg": alg, "enc": enc, "kid": kid, "use": "sig", "kek": kek_id(FIRST)}

        assert refusal(seal_with_header(FIRST, header, private.export_private()), kid=kid).code == "seal_broken"

    @pytest.mark.parametrize(
        "inside", ["", "{}", "[]", "not JSON", '{"kty":"RSA"}', '{"generate":"RSA","size":2048}']
    )
    def test_unseal_refuses_a_sealed_key_that_contains_no_key(self, inside, kid):
        header = {"alg": "A256KW", "enc": "A256GCM", "kid": kid, "use": "sig", "kek": kek_id(FIRST)}

        assert refusal(seal_with_header(FIRST, header, inside), kid=kid).code == "seal_broken"


class TestAModifiedSealedKey:
    @pytest.mark.parametrize("segment", range(5), ids=["header", "wrapped-key", "iv", "ciphertext", "tag"])
    @pytest.mark.parametrize("where", ["first", "middle", "last"])
    @pytest.mark.parametrize(
        "characters",
        [string.ascii_uppercase, string.ascii_lowercase, string.digits, "-_", "+/=", " \n\x00", "é\u2028", ".{}\"'"],
        ids=["upper", "lower", "digit", "base64url", "base64", "blank", "not-ascii", "syntax"],
    )
    def test_k7_unseal_refuses_a_sealed_key_with_a_modified_character(self, segment, where, characters, sealed, kid):
        parts = sealed.split(".")
        at = {"first": 0, "middle": len(parts[segment]) // 2, "last": len(parts[segment]) - 1}[where]
        for character in characters:
            text = parts[segment][:at] + character + parts[segment][at + 1 :]
            if text != parts[segment]:
                flipped = ".".join([*parts[:segment], text, *parts[segment + 1 :]])
                assert refusal(flipped, kid=kid).code in {"seal_broken", "kek_missing"}

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(where=st.floats(0, 0.9999), put=st.text(max_size=3), cut=st.integers(0, 3))
    def test_k7_unseal_refuses_a_sealed_key_with_added_or_removed_characters(self, where, put, cut, sealed, kid):
        at = int(len(sealed) * where)
        text = sealed[:at] + put + sealed[at + cut :]

        if text != sealed:
            assert refusal(text, kid=kid).code in {"seal_broken", "kek_missing"}

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.text(max_size=200))
    def test_k7_unseal_raises_an_unseal_error_for_a_string_that_is_not_a_sealed_key(self, text, kid):
        assert refusal(text, kid=kid).code in {"seal_broken", "kek_missing"}


class TestTheIdOfTheKeyEncryptionKey:
    def test_the_id_of_the_key_encryption_key_is_read_from_the_sealed_key(self, sealed):
        assert sealing.sealed_under(sealed) == kek_id(FIRST)

    @pytest.mark.parametrize(
        "header", [b"{}", b"[]", b"null", b'"kek"', b'{"kek":1}', b'{"kek":["x"]}', b"\xff", b"[" * 100_000]
    )
    def test_the_id_of_the_key_encryption_key_is_empty_if_the_header_contains_no_id(self, header):
        assert sealing.sealed_under(base64.urlsafe_b64encode(header).decode() + ".a.b.c.d") == ""

    def test_the_id_of_the_key_encryption_key_is_empty_for_an_empty_string(self):
        assert sealing.sealed_under("") == ""

    def test_unseal_refuses_a_sealed_key_with_a_modified_id_of_the_key_encryption_key(self, sealed, kid):
        # The authentication tag covers the header, so a modified id is detected.
        parts = sealed.split(".")
        header = header_of(sealed) | {"kek": kek_id(SECOND)}
        parts[0] = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()

        assert refusal(".".join(parts), kid=kid, keks=(FIRST, SECOND)).code == "seal_broken"


class TestTheErrorsOfUnsealing:
    def test_a1_errors_of_unsealing_contain_no_private_key_and_no_key_encryption_key(self, private, kid):
        # Use random keys, because repeated bytes could match by accident.
        kek, other = KeyEncryptionKey(os.urandom(32)), KeyEncryptionKey(os.urandom(32))
        sealed = sealing.seal(PrivateKey(private), kid=kid, use="sig", keks=[kek])
        errors = [
            refusal(sealed, kid=kid, keks=(other,)),
            refusal(sealed, kid=kid, use="enc", keks=(kek,)),
            refusal(sealed[:-5], kid=kid, keks=(kek,)),
        ]

        secrets = [private[member] for member in PRIVATE_MEMBERS] + sealed.split(".")
        secrets += [
            form
            for key in (kek.reveal(), other.reveal())
            for form in (key.hex(), base64.b64encode(key).decode()[:40], repr(key))
        ]
        for error in errors:
            # A traceback also prints the cause and the context of an error, and these errors could contain a key.
            assert error.__cause__ is None
            assert error.__context__ is None
            for secret in secrets:
                assert secret not in str(error) + repr(error) + repr(error.args)

    def test_a1_str_and_repr_of_an_unsealed_key_contain_no_private_key(self, sealed, kid):
        unsealed = sealing.unseal(sealed, kid=kid, use="sig", keks=[FIRST])

        assert {repr(unsealed), str(unsealed), f"{unsealed}"} == {"<private key>"}
