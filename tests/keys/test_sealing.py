"""Private keys at rest: what opens a sealed key, and that nothing else does."""

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

from instaccess.conf import kek_id
from instaccess.exceptions import KeyUnavailable, UnsealError
from instaccess.keys import sealing

FIRST, SECOND, THIRD = (bytes([n]) * 32 for n in (1, 2, 3))
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
    return sealing.seal(private, kid=kid, use="sig", keks=[FIRST])


def header_of(sealed: str) -> dict[str, str]:
    first = sealed.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))


def refusal(sealed: str, *, kid: str, use: str = "sig", keks: tuple[bytes, ...] = (FIRST,)) -> UnsealError:
    with pytest.raises(UnsealError) as caught:
        sealing.unseal(sealed, kid=kid, use=use, keks=keks)
    return caught.value


def sealed_by_hand(kek: bytes, header: dict[str, str], plaintext: str) -> str:
    jwe = JWE(plaintext, json.dumps(header), algs=[header["alg"], header["enc"]])
    jwe.add_recipient(JWK(kty="oct", k=base64.urlsafe_b64encode(kek).rstrip(b"=").decode()))
    return str(jwe.serialize(compact=True))


class TestASealedKey:
    def test_opens_to_what_it_was(self, sealed, private, kid):
        opened = sealing.unseal(sealed, kid=kid, use="sig", keks=[FIRST])

        assert opened.export_private() == private.export_private()

    def test_says_in_its_header_which_key_it_is_what_for_and_under_what(self, sealed, kid):
        assert header_of(sealed) == {
            "alg": "A256KW",
            "enc": "A256GCM",
            "cty": "jwk+json",
            "kid": kid,
            "use": "sig",
            "kek": kek_id(FIRST),
        }

    def test_shows_nothing_of_the_private_half_nor_of_the_key_encryption_key(self, sealed, private):
        raw = b"".join(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in sealed.split("."))

        for member in PRIVATE_MEMBERS:
            assert private[member] not in sealed
            assert private[member].encode() not in raw
        assert FIRST not in raw

    def test_is_never_sealed_the_same_twice(self, sealed, private, kid):
        assert sealing.seal(private, kid=kid, use="sig", keks=[FIRST]) != sealed

    def test_of_the_longest_kind_opens_too(self):
        # The longest key that is accepted must fit whatever limit guards the opening.
        private = JWK.generate(kty="RSA", size=4096, use="enc")
        kid = private.thumbprint()

        sealed = sealing.seal(private, kid=kid, use="enc", keks=[FIRST])

        assert sealing.unseal(sealed, kid=kid, use="enc", keks=[FIRST]).thumbprint() == kid


class TestTheKeyEncryptionKeys:
    def test_first_of_them_seals(self, private, kid):
        sealed = sealing.seal(private, kid=kid, use="sig", keks=[SECOND, FIRST])

        assert sealing.sealed_under(sealed) == kek_id(SECOND)

    @pytest.mark.parametrize("keks", [(FIRST,), (SECOND, FIRST), (THIRD, SECOND, FIRST)])
    def test_all_of_them_open(self, keks, sealed, kid):
        assert sealing.unseal(sealed, kid=kid, use="sig", keks=keks).thumbprint() == kid

    @pytest.mark.parametrize("keks", [(), (SECOND,), (SECOND, THIRD)])
    def test_o6_lost_is_an_error_that_names_the_settings(self, keks, sealed, kid):
        error = refusal(sealed, kid=kid, keks=keks)

        assert error.code == "kek_missing"
        assert isinstance(error, KeyUnavailable)
        assert "KEY_ENCRYPTION_KEYS" in error.detail
        assert "SECRET_KEY_FALLBACKS" in error.detail
        assert kid in error.detail

    def test_go_by_names_that_tell_nothing_of_them(self):
        names = {kek_id(kek) for kek in (FIRST, SECOND, THIRD)}

        assert len(names) == 3
        assert all(len(name) == 12 and set(name) <= set(ALPHABET) for name in names)
        assert kek_id(FIRST) == sealing.kek_id(bytes(FIRST))


class TestASealedKeyInTheWrongPlace:
    def test_k7_is_refused_in_another_row(self, sealed, rsa_pool):
        rsa_pool.take()
        other = rsa_pool.take().thumbprint()

        error = refusal(sealed, kid=other)

        assert error.code == "seal_broken"
        assert other in error.detail

    def test_k7_is_refused_for_another_use(self, sealed, kid):
        assert refusal(sealed, kid=kid, use="enc").code == "seal_broken"

    def test_k7_is_refused_when_two_rows_were_swapped(self, rsa_pool):
        private, kids = [rsa_pool.take(), rsa_pool.take()], []
        for key in private:
            kids.append(key.thumbprint())
        one, two = (
            sealing.seal(key, kid=kid, use="sig", keks=[FIRST]) for key, kid in zip(private, kids, strict=True)
        )

        assert refusal(two, kid=kids[0]).code == "seal_broken"
        assert refusal(one, kid=kids[1]).code == "seal_broken"

    def test_k7_is_refused_when_its_header_lies_about_the_key_inside(self, kid, rsa_pool):
        rsa_pool.take()
        another = rsa_pool.take("sig")
        header = {"alg": "A256KW", "enc": "A256GCM", "kid": kid, "use": "sig", "kek": kek_id(FIRST)}

        lie = sealed_by_hand(FIRST, header, another.export_private())

        assert refusal(lie, kid=kid).code == "seal_broken"

    @pytest.mark.parametrize("missing", ["kid", "use"])
    def test_k7_is_refused_when_its_header_does_not_say_where_it_belongs(self, missing, private, kid):
        header = {"alg": "A256KW", "enc": "A256GCM", "kid": kid, "use": "sig", "kek": kek_id(FIRST)}
        del header[missing]

        assert refusal(sealed_by_hand(FIRST, header, private.export_private()), kid=kid).code == "seal_broken"

    @pytest.mark.parametrize(
        ("alg", "enc"), [("A256KW", "A128CBC-HS256"), ("dir", "A256GCM"), ("A256GCMKW", "A256GCM")]
    )
    def test_is_refused_under_another_algorithm(self, alg, enc, private, kid):
        header = {"alg": alg, "enc": enc, "kid": kid, "use": "sig", "kek": kek_id(FIRST)}

        assert refusal(sealed_by_hand(FIRST, header, private.export_private()), kid=kid).code == "seal_broken"

    @pytest.mark.parametrize("inside", ["", "{}", "[]", "no json", '{"kty":"RSA"}', '{"generate":"RSA","size":2048}'])
    def test_is_refused_when_there_is_no_key_inside(self, inside, kid):
        header = {"alg": "A256KW", "enc": "A256GCM", "kid": kid, "use": "sig", "kek": kek_id(FIRST)}

        assert refusal(sealed_by_hand(FIRST, header, inside), kid=kid).code == "seal_broken"


class TestAFlippedCharacter:
    @pytest.mark.parametrize("segment", range(5), ids=["header", "wrapped-key", "iv", "ciphertext", "tag"])
    @pytest.mark.parametrize("where", ["first", "middle", "last"])
    @pytest.mark.parametrize(
        "characters",
        [string.ascii_uppercase, string.ascii_lowercase, string.digits, "-_", "+/=", " \n\x00", "é\u2028", ".{}\"'"],
        ids=["upper", "lower", "digit", "base64url", "base64", "blank", "not-ascii", "syntax"],
    )
    def test_k7_is_refused(self, segment, where, characters, sealed, kid):
        parts = sealed.split(".")
        at = {"first": 0, "middle": len(parts[segment]) // 2, "last": len(parts[segment]) - 1}[where]
        for character in characters:
            text = parts[segment][:at] + character + parts[segment][at + 1 :]
            if text != parts[segment]:
                flipped = ".".join([*parts[:segment], text, *parts[segment + 1 :]])
                assert refusal(flipped, kid=kid).code in {"seal_broken", "kek_missing"}

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(where=st.floats(0, 0.9999), put=st.text(max_size=3), cut=st.integers(0, 3))
    def test_k7_added_or_lost_is_refused_too(self, where, put, cut, sealed, kid):
        at = int(len(sealed) * where)
        text = sealed[:at] + put + sealed[at + cut :]

        if text != sealed:
            assert refusal(text, kid=kid).code in {"seal_broken", "kek_missing"}

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.text(max_size=200))
    def test_k7_whatever_stands_in_the_row_the_error_is_this_one(self, text, kid):
        assert refusal(text, kid=kid).code in {"seal_broken", "kek_missing"}


class TestTheNameOfTheKeyEncryptionKey:
    def test_is_read_from_the_sealed_text(self, sealed):
        assert sealing.sealed_under(sealed) == kek_id(FIRST)

    @pytest.mark.parametrize(
        "header", [b"{}", b"[]", b"null", b'"kek"', b'{"kek":1}', b'{"kek":["x"]}', b"\xff", b"[" * 100_000]
    )
    def test_is_empty_where_there_is_none(self, header):
        assert sealing.sealed_under(base64.urlsafe_b64encode(header).decode() + ".a.b.c.d") == ""

    def test_is_empty_for_an_empty_text(self):
        assert sealing.sealed_under("") == ""

    def test_cannot_point_to_another_key_unnoticed(self, sealed, kid):
        # The header is covered by the tag: renaming the key-encryption key breaks the seal.
        parts = sealed.split(".")
        header = header_of(sealed) | {"kek": kek_id(SECOND)}
        parts[0] = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()

        assert refusal(".".join(parts), kid=kid, keks=(FIRST, SECOND)).code == "seal_broken"


class TestTheErrorsOfOpening:
    def test_a1_hold_no_byte_of_the_private_half_nor_of_a_key_encryption_key(self, private, kid):
        # Real ones, not repeated bytes, so that a match is no accident.
        kek, other = os.urandom(32), os.urandom(32)
        sealed = sealing.seal(private, kid=kid, use="sig", keks=[kek])
        errors = [
            refusal(sealed, kid=kid, keks=(other,)),
            refusal(sealed, kid=kid, use="enc", keks=(kek,)),
            refusal(sealed[:-5], kid=kid, keks=(kek,)),
        ]

        secrets = [private[member] for member in PRIVATE_MEMBERS] + sealed.split(".")
        secrets += [
            form for key in (kek, other) for form in (key.hex(), base64.b64encode(key).decode()[:40], repr(key))
        ]
        for error in errors:
            # A traceback prints what an error came from as well.
            assert error.__cause__ is None
            assert error.__context__ is None
            for secret in secrets:
                assert secret not in str(error) + repr(error) + repr(error.args)

    def test_a1_the_opened_key_does_not_print_itself(self, sealed, kid):
        opened = sealing.unseal(sealed, kid=kid, use="sig", keks=[FIRST])

        for member in PRIVATE_MEMBERS:
            assert opened[member] not in repr(opened)
            assert opened[member] not in str(opened)
