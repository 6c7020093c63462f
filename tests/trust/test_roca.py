"""Tests that keys vulnerable to the ROCA attack (CVE-2017-15361) are refused in imports, settings and JWK sets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import override_settings
from jwcrypto.common import base64url_decode
from jwcrypto.jwk import JWK

from instaccess.exceptions import ConfigError, KeyRefused
from instaccess.models import Key
from instaccess.trust import remote_jwks, roca, sources
from tests.support import key_texts
from tests.support.weak_keys import roca_weak_key

BOTH_STRUCTURES = pytest.mark.parametrize("primes", [39, 126])


def modulus(key: JWK) -> int:
    return int.from_bytes(base64url_decode(key["n"]), "big")


def texts(key: JWK) -> dict[str, str]:
    """Return a key in each format in which a key can be imported."""
    return {
        "public PEM": key.export_to_pem().decode(),
        "private PEM": key.export_to_pem(private_key=True, password=None).decode(),
        "public JWK": key.export_public(),
        "private JWK": key.export_private(),
    }


class TestTheStructureOfWeakKeys:
    @BOTH_STRUCTURES
    def test_k20_roca_test_detects_a_modulus_with_the_published_structure(self, primes):
        assert roca.is_weak(modulus(roca_weak_key(primes)))

    def test_k20_roca_test_detects_a_prime_factor_with_the_published_structure(self):
        factor = int.from_bytes(base64url_decode(roca_weak_key(126)["p"]), "big")

        assert roca.is_weak(factor)
        assert not roca.is_weak(factor + 2)

    def test_k20_roca_test_accepts_normal_keys(self, rsa_pool):
        assert [roca.is_weak(modulus(rsa_pool.take())) for _ in range(5)] == [False] * 5

    def test_k20_roca_test_uses_17_primes_and_reports_one_in_240_million_normal_moduli_as_weak(self):
        """The paper about ROCA gives the same chance, rounded to 2 ** -27.8, for the primes up to 167."""
        chance = 1.0
        for prime, order in roca._SUBGROUPS:
            chance *= order / (prime - 1)

        assert len(roca._SUBGROUPS) == 17
        assert 1 / chance == pytest.approx(240e6, rel=0.02)

    @pytest.mark.parametrize("number", [0, 2, 3 * 5 * 7 * 11 * 13 * 17])
    def test_k20_roca_test_accepts_a_number_with_a_small_factor(self, number):
        assert not roca.is_weak(number)


class TestAWeakKeyFromOutside:
    @BOTH_STRUCTURES
    @pytest.mark.parametrize("kind", ["public PEM", "private PEM", "public JWK", "private JWK"])
    def test_k20_key_parser_refuses_a_weak_key_in_every_format_and_gives_the_reason(self, primes, kind):
        with pytest.raises(KeyRefused, match="CVE-2017-15361") as caught:
            key_texts.parse(texts(roca_weak_key(primes))[kind])
        assert "Generate a new key" in caught.value.detail

    @pytest.mark.django_db
    @pytest.mark.parametrize("use", ["sig", "enc"])
    def test_k20_the_import_of_a_weak_key_is_refused(self, use):
        with pytest.raises(KeyRefused, match="ROCA"):
            key_texts.import_key(texts(roca_weak_key(126))["private PEM"], use=Key.Use(use), with_private=True)
        assert not Key.objects.exists()

    def test_k20_a_weak_member_of_a_jwk_set_is_skipped_and_logged(self, rsa_pool, caplog):
        good = rsa_pool.take()
        weak = roca_weak_key(126).export_public(as_dict=True)
        keys = remote_jwks.read_jwks({"keys": [weak, good.export_public(as_dict=True)]})

        assert list(keys) == [good.thumbprint()]
        assert "CVE-2017-15361" in caplog.text

    @pytest.mark.parametrize(
        ("setting", "load", "kind"),
        [
            ("VERIFICATION_KEYS", sources.verification_keys, "public PEM"),
            ("DECRYPTION_KEYS", sources.decryption_keys, "private JWK"),
        ],
    )
    def test_k20_a_weak_key_in_the_settings_is_refused(self, setting: str, load: Any, kind: str):
        sources._parse_decryption_keys.cache_clear()
        sources._parse_verification_keys.cache_clear()
        with (
            override_settings(INSTACCESS={setting: [texts(roca_weak_key(126))[kind]]}),
            pytest.raises(ConfigError, match=rf"{setting}'\]\[0\] contains a key that can't be used: .*ROCA"),
        ):
            load()

    def test_k20_a_weak_signing_key_in_a_jwk_set_in_the_settings_is_refused(self):
        sources._parse_decryption_keys.cache_clear()
        sources._parse_verification_keys.cache_clear()
        document = json.dumps({"keys": [roca_weak_key(39).export_public(as_dict=True)]})
        with (
            override_settings(INSTACCESS={"VERIFICATION_KEYS": [document]}),
            pytest.raises(ConfigError, match="the JWK set contains no usable signing key"),
        ):
            sources.verification_keys()
