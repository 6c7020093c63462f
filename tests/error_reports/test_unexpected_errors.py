"""Tests that no report of an error in cryptography, in the settings or in a hook contains a secret."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import override_settings
from django.views.debug import SafeExceptionReporterFilter
from rest_framework.request import Request

from instaccess import audit, keys, trust
from instaccess.conf import checks as conf_checks
from instaccess.conf import conf, key_encryption
from instaccess.gateway import unwrapping
from instaccess.issuer import issuing
from instaccess.keys import lifecycle, provision
from instaccess.models import Key
from instaccess.opaque import Opaque
from instaccess.service import InstAccessAuthentication
from tests.error_reports.conftest import clear_caches
from tests.support.error_reports import django_reports, read_exception
from tests.support.secrets import Secrets


def reports_of(error: BaseException) -> str:
    return "\n".join([read_exception(error), *django_reports(error).values()])


def fail(*args: Any, **kwargs: Any) -> Any:
    # Put the arguments into the message, because the error messages of libraries can contain arguments.
    texts = [value for value in (*args, *kwargs.values()) if isinstance(value, (str, bytes))]
    raise AssertionError(f"not expected: {texts}")


FUNCTIONS = [
    "cryptography.hazmat.primitives.kdf.hkdf.HKDF.derive",
    "jwcrypto.jwk.JWK.export_private",
    "jwcrypto.jwk.JWK.export_to_pem",
    "jwcrypto.jwk.JWK.from_json",
    "jwcrypto.jwk.JWK.from_pem",
    "jwcrypto.jwk.JWK.get_op_key",
    "jwcrypto.jwk.JWK.thumbprint",
    "jwcrypto.jwe.JWE.add_recipient",
    "jwcrypto.jwe.JWE.decrypt",
    "jwcrypto.jwe.JWE.serialize",
    "instaccess.conf.key_encryption.hmac.digest",
    "instaccess.tokens.minting.jws",
    "instaccess.tokens.minting.jwe",
]


class Deployment:
    """A deployment with a function for each action that uses secrets."""

    def __init__(self, user: Any, pair: Any, token: str) -> None:
        self.user, self.token = user, Opaque(token)
        self.pem = Opaque(pair.export_to_pem(private_key=True, password=None))
        self.jwk = Opaque(pair.export_private().encode())
        self.key = Key.objects.get(use="sig", status="current")

    def actions(self) -> dict[str, Callable[[], Any]]:
        return {
            "rotate": lambda: lifecycle.rotate(Key.Use.SIGNING, force=True),
            "revoke": lambda: lifecycle.revoke(self.key.kid),
            "import PEM": lambda: provision.import_key(self.pem, use=Key.Use.SIGNING, with_private=True),
            "import JWK": lambda: provision.import_key(self.jwk, use=Key.Use.SIGNING, with_private=True),
            "export PEM": lambda: provision.export_private(self.key, file_format="pem"),
            "export JWK": lambda: provision.export_private(self.key, file_format="jwk"),
            "check": provision.check_sealed_keys,
            "issue": lambda: issuing.issue(user=self.user, origin=issuing.Origin("testserver"), now=time.time()),
            "unwrap": lambda: unwrapping.unwrap_with_settings(self.token, now=time.time()),
            "revoke tokens": lambda: audit.revoke(
                audit.revocable_tokens(), keks=keys.keks_for_revocation(), reason="lost"
            ),
            "seal rows": lambda: audit.seal(keys.evidence_keys()),
        }


@pytest.fixture
def deployed(deployment: None, user: Any, rsa_pool: Any, every_secret: Secrets) -> Deployment:
    _, token = issuing.issue(user=user, origin=issuing.Origin("testserver"), now=time.time())
    every_secret.add(token)
    return Deployment(user, rsa_pool.take(), token)


@pytest.mark.django_db
class TestAnErrorInCryptography:
    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_k14_error_in_a_cryptography_library_reveals_no_secret(
        self, function, deployed, every_secret, monkeypatch
    ):
        errors: dict[str, Exception] = {}
        for name, action in deployed.actions().items():
            clear_caches()
            key_encryption._hmac_key.cache_clear()
            with monkeypatch.context() as patch:
                patch.setattr(function, fail)
                try:
                    action()
                except Exception as error:
                    errors[name] = error
        assert errors
        # Skip the error of `unwrap`. The traceback contains the token, but the callers of `unwrap` never report this
        # error.
        errors.pop("unwrap", None)
        leaks = {name: every_secret.find_in(reports_of(error)) for name, error in errors.items()}
        assert not any(leaks.values()), leaks


@pytest.mark.django_db
class TestAnErrorInTheSettings:
    @pytest.fixture
    def secret_settings(self, settings: Any, every_secret: Secrets, rsa_pool: Any) -> dict[str, Any]:
        pem = rsa_pool.take().export_to_pem(private_key=True, password=None).decode()
        settings.INSTACCESS = {**settings.INSTACCESS, "DECRYPTION_KEYS": [pem]}
        return settings.INSTACCESS

    @pytest.mark.parametrize(
        ("name", "other", "read"),
        [
            ("KEY_ENCRYPTION_KEYS", "short", lambda: conf.key_encryption_keys),
            ("KEY_ENCRYPTION_KEYS", None, lambda: conf.key_encryption_keys),
            ("SERVICE_SECRETS", "short", lambda: conf.service_secrets),
            ("DECRYPTION_KEYS", 7, lambda: conf.decryption_keys),
            ("DECRYPTION_KEYS", "/does/not/exist", trust.decryption_keys),
            ("DECRYPTION_KEYS", "-----BEGIN PRIVATE KEY-----", trust.decryption_keys),
        ],
    )
    def test_k14_error_about_an_invalid_secret_in_the_settings_reveals_no_secret(
        self, name, other, read, secret_settings, every_secret
    ):
        values = {**secret_settings, name: [*secret_settings[name], other]}
        with override_settings(INSTACCESS=values), pytest.raises(Exception, match=name) as caught:
            read()

        assert every_secret.find_in(reports_of(caught.value)) == []

    def test_k14_error_about_an_unknown_setting_reveals_no_secret(self, secret_settings, every_secret):
        with (
            override_settings(INSTACCESS={**secret_settings, "LIFETIMES": 60}),
            pytest.raises(Exception, match="LIFETIMES") as caught,
        ):
            _ = conf.lifetime

        assert every_secret.find_in(reports_of(caught.value)) == []

    def test_k14_error_about_a_hook_that_cannot_be_imported_reveals_no_secret(
        self, secret_settings, every_secret, monkeypatch
    ):
        monkeypatch.setattr("instaccess.conf.values.import_string", fail)
        with (
            override_settings(INSTACCESS={**secret_settings, "CLAIMS_HOOK": "a.hook"}),
            pytest.raises(AssertionError, match=r"a\.hook") as caught,
        ):
            conf_checks.check_settings()

        assert every_secret.find_in(reports_of(caught.value)) == []

    def test_a1_settings_in_django_reports_contain_no_secret(self, secret_settings, every_secret):
        text = repr(SafeExceptionReporterFilter().get_safe_settings())

        assert "SERVICE_SECRETS" in text
        assert every_secret.find_in(text) == []


@pytest.mark.django_db
class TestAnErrorInAHookOfAService:
    def test_p27_error_in_the_user_hook_reveals_no_token(self, deployment, user, every_secret, settings):
        _, signed = issuing.issue(user=user, origin=issuing.Origin("testserver"), now=time.time(), encrypted=False)
        every_secret.add(signed)
        settings.INSTACCESS = {**settings.INSTACCESS, "USER_HOOK": fail}
        request = HttpRequest()
        request.META["HTTP_AUTHORIZATION"] = f"Bearer {signed}"
        with pytest.raises(AssertionError) as caught:
            InstAccessAuthentication().authenticate(Request(request))

        assert every_secret.find_in(reports_of(caught.value)) == []

    def test_p27_error_in_the_verification_of_a_service_reveals_no_token(
        self, deployment, user, every_secret, monkeypatch, collector
    ):
        _, signed = issuing.issue(user=user, origin=issuing.Origin("testserver"), now=time.time(), encrypted=False)
        every_secret.add(signed)
        monkeypatch.setattr("jwcrypto.jws.JWS.verify", fail)
        request = HttpRequest()
        request.META["HTTP_AUTHORIZATION"] = f"Bearer {signed}"
        collector.clear()
        with pytest.raises(Exception, match="unavailable") as caught:
            InstAccessAuthentication().authenticate(Request(request))

        assert "AssertionError" in collector.texts()["log"]
        assert every_secret.find_in("\n".join([reports_of(caught.value), *collector.texts().values()])) == []
