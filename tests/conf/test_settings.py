"""Tests of each setting: its default, its accepted values, and its refused values."""

from __future__ import annotations

import base64
import os
import secrets
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.test import override_settings

from instaccess.conf import DERIVED, KEEPING_SLACK, REVOCATION_SECONDS, SETTINGS, Conf, KeyEncryptionKey, conf
from instaccess.conf import checks as conf_checks
from instaccess.exceptions import ConfigError
from instaccess.keys import sealing
from instaccess.opaque import OpaqueText

INVALID_STRINGS = ["", "x" * 256, 1, True, b"bytes", ["list"], {}]
INVALID_INTEGERS = ["1", 1.0, True, -1, 10**9, [1], b"1"]
INVALID_BOOLEANS = ["True", "yes", 1, 0, None, []]
INVALID_URLS = [
    "",
    "http://issuer.example/jwks",
    "ftp://issuer.example/jwks",
    "//issuer.example",
    "file:///etc/passwd",
    "https://",
    "https://ada:secret@issuer.example/jwks",
    "https://[::1/jwks",
]
INVALID_KEY_LISTS = [[], (), {}, 1, True, [1], [None], [b"a"], ["a", None], {"a"}]
INVALID_HOOKS = [
    "",
    "nowhere",
    "no.such.module",
    "os.no_such_name",
    ".hook",
    "..hook",
    "os.path.",
    "os.sep",
    1,
    False,
    [],
    {},
]


def derived(secret: str) -> KeyEncryptionKey:
    """Derive a key-encryption key from SECRET_KEY (RFC 5869), without the code under test."""
    kdf = HKDF(SHA256(), 32, salt=None, info=b"instaccess key-encryption key v1")
    return KeyEncryptionKey(kdf.derive(secret.encode()))


def copy(text: str) -> str:
    """Return an equal string that is a different object, as when a project reads the string from its environment."""
    return str(text.encode(), "ascii")


# The keys are fixed, because test ids contain the keys. No byte occurs twice, because the tests search errors for
# parts of the keys, and a part that repeats one byte could match other text.
ONE, TWO = bytes(range(90, 122)), bytes(range(150, 182))
KEK_ONE, KEK_TWO = KeyEncryptionKey(ONE), KeyEncryptionKey(TWO)


def b64(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


# The table contains, for each setting, the default, the valid values with their results, and the invalid values.
TABLE: dict[str, tuple[Any, list[tuple[Any, Any]], list[Any]]] = {
    "ISSUER": (
        "instructure:inst_access",
        [("https://issuer.example", "https://issuer.example"), ("x", "x")],
        [*INVALID_STRINGS, None],
    ),
    "ACCEPTED_ISSUERS": (
        ["instructure:inst_access"],
        [(["a", "b"], ["a", "b"]), (("a",), ["a"]), (["x" * 255], ["x" * 255]), (None, ["instructure:inst_access"])],
        ["instructure:inst_access", [], (), {}, {"a"}, [""], ["x" * 256], ["a", None], [1], 1, True],
    ),
    "LIFETIME": (3600, [(1, 1), (3600, 3600)], [*INVALID_INTEGERS, 0, 3601, None]),
    "REGION": (None, [("eu-west-1", "eu-west-1"), ("x" * 255, "x" * 255), (None, None)], INVALID_STRINGS),
    "SHARD_ID": (None, [(7, 7), (1, 1), ("shard-7", "shard-7"), (None, None)], [0, -1, True, 1.0, "", []]),
    "ACCOUNT_UUID": (None, [("account-1", "account-1"), (None, None)], INVALID_STRINGS),
    "ACCOUNT_HOOK": (None, [("os.path.basename", os.path.basename), (str.upper, str.upper)], INVALID_HOOKS),
    "USER_UUID_FIELD": (None, [("username", "username"), (None, None)], INVALID_STRINGS),
    "CLAIMS_HOOK": (None, [("os.path.join", os.path.join), (dict, dict)], INVALID_HOOKS),
    "MASQUERADE_HOOK": (None, [("os.path.samefile", os.path.samefile), (hash, hash)], INVALID_HOOKS),
    "THROTTLE_LIMIT": (600, [(1, 1), (1_000_000, 1_000_000), (None, None)], [*INVALID_INTEGERS, 0, 1_000_001]),
    "THROTTLE_COST": (200, [(1, 1), (1_000_000, 1_000_000)], [*INVALID_INTEGERS, 0, 1_000_001, None]),
    "THROTTLE_LEAK": (10, [(1, 1), (1_000_000, 1_000_000)], [*INVALID_INTEGERS, 0, 1_000_001, None]),
    "THROTTLE_STATUS": (429, [(429, 429), (403, 403)], [200, 503, "429", None, True, 429.0]),
    "THROTTLE_CACHE": ("default", [("default", "default")], [*INVALID_STRINGS, None, "no_such_cache"]),
    "ENCRYPTION_ALG": (
        "RSA-OAEP",
        [("RSA-OAEP-256", "RSA-OAEP-256"), ("RSA1_5", "RSA1_5")],
        ["rsa-oaep", "dir", "", "RSA-OAEP-512", None, ["RSA-OAEP"], 1],
    ),
    "CONTENT_ENCRYPTION": (
        "A128CBC-HS256",
        [("A256GCM", "A256GCM")],
        ["A256CBC-HS512", "a256gcm", "", None, ["A256GCM"]],
    ),
    "SIGNING_ALG": ("RS256", [("RS256", "RS256")], ["HS256", "none", "PS256", "rs256", "", None, ["RS256"]]),
    "KEY_SIZE": (2048, [(3072, 3072), (4096, 4096)], [*INVALID_INTEGERS, 1024, 2049, 2048.0, 8192, None]),
    "ALLOW_UNENCRYPTED": (False, [(True, True), (False, False)], INVALID_BOOLEANS),
    "KEY_ENCRYPTION_KEYS": (
        [derived("the-secret")],
        [
            ([b64(ONE)], [KEK_ONE]),
            ([b64(ONE), b64(TWO)], [KEK_ONE, KEK_TWO]),
            ((b64(ONE),), [KEK_ONE]),
            ([base64.urlsafe_b64encode(ONE).decode()], [KEK_ONE]),
            ([b64(ONE), DERIVED], [KEK_ONE, derived("the-secret")]),
            ([DERIVED], [derived("the-secret")]),
            ([copy(DERIVED)], [derived("the-secret")]),
        ],
        [
            [],
            (),
            "",
            {},
            None,
            b64(ONE),
            b64(ONE).encode(),
            [ONE],
            [b64(ONE), ""],
            [b64(ONE[:31])],
            [b64(ONE + b"x")],
            [None],
            [1],
            ["é" * 43],
            ["!" * 43],
            [b64(ONE)[:20] + "\n" + b64(ONE)[20:]],
            [b64(ONE)[:20] + "\n" * 4 + b64(ONE)[20:]],
            {b64(ONE)},
        ],
    ),
    "KEY_CACHE_SECONDS": (3, [(0, 0), (5, 5)], [*INVALID_INTEGERS, 6, None]),
    "KEY_ROTATION_DAYS": (30, [(1, 1), (3650, 3650)], [*INVALID_INTEGERS, 0, 3651, None]),
    "KEY_LEAD_SECONDS": (303, [(303, 303), (86_400, 86_400), (None, 303)], ["303", 303.0, True, 302, 0, -1, []]),
    "KEY_RETENTION_SECONDS": (
        3663,
        [(3663, 3663), (10**9, 10**9), (None, 3663)],
        ["3663", 3663.0, True, 3662, 0, -1, []],
    ),
    "JWKS_MAX_AGE": (300, [(0, 0), (86_400, 86_400)], [*INVALID_INTEGERS, 86_401, None]),
    "LEEWAY": (0, [(5, 5), (300, 300)], [*INVALID_INTEGERS, 301, None]),
    "DECRYPTION_KEYS": (
        None,
        [
            (["a", "b"], [OpaqueText("a"), OpaqueText("b")]),
            (("a",), [OpaqueText("a")]),
            ([Path("/keys/a.pem")], [OpaqueText("/keys/a.pem")]),
            (None, None),
        ],
        [*INVALID_KEY_LISTS, "a", "https://issuer.example/jwks"],
    ),
    "VERIFICATION_KEYS": (
        None,
        [
            (["a", "b"], [OpaqueText("a"), OpaqueText("b")]),
            ("https://issuer.example/jwks", "https://issuer.example/jwks"),
            (None, None),
        ],
        INVALID_KEY_LISTS + INVALID_URLS,
    ),
    "DENY_LIST": (
        "database",
        [
            ("database", "database"),
            (copy("database"), "database"),
            ("https://issuer.example/revocations", "https://issuer.example/revocations"),
        ],
        INVALID_STRINGS + INVALID_URLS + [None, "Database"],
    ),
    "DENY_LIST_SECONDS": (2, [(0, 0), (4, 4)], [*INVALID_INTEGERS, 5, None]),
    "MAX_STALENESS": (60, [(0, 0), (3600, 3600)], [*INVALID_INTEGERS, 3601, None]),
    "SERVICE_SECRETS": (
        [],
        [
            (["s" * 32], [OpaqueText("s" * 32)]),
            (("s" * 255, "t" * 32), [OpaqueText("s" * 255), OpaqueText("t" * 32)]),
            ([], []),
        ],
        [
            None,
            "s" * 32,
            {},
            [1],
            [b"s" * 32],
            ["s" * 31],
            ["s" * 256],
            ["s" * 32, ""],
            ["é" * 32],
            ["s " * 32],
            ["s" * 32 + "\n"],
        ],
    ),
    "USER_HOOK": (None, [("os.path.basename", os.path.basename), (str.upper, str.upper)], INVALID_HOOKS),
    "OTHER_BEARERS": ("refuse", [("pass", "pass"), ("refuse", "refuse")], ["Pass", "", None, True, 1, ["pass"]]),
    "KEEP_DECISION_SECONDS": (0, [(0, 0), (1, 1)], [*INVALID_INTEGERS, 2, None]),
    "REMEMBERED_TOKENS": (5000, [(0, 0), (1_000_000, 1_000_000)], [*INVALID_INTEGERS, 1_000_001, None]),
    "AUDIT_RETENTION_DAYS": (None, [(None, None), (1, 1), (36_500, 36_500)], ["400", 0, -1, 1.5, True, 36_501]),
    "AUDIT_USER_NAMES": (True, [(True, True), (False, False)], INVALID_BOOLEANS),
    "ALLOW_HTTP_URLS": (False, [(True, True), (False, False)], INVALID_BOOLEANS),
    "REALM": (
        "canvas-lms",
        [("my realm", "my realm")],
        [
            *INVALID_STRINGS,
            None,
            'quo"te',
            "back\\slash",
            "new\nline",
            "carriage\rreturn",
            "nul\x00",
            "réalm",
            "tab\t",
        ],
    ),
    "ALLOW_TOKEN_IN_PARAMETERS": (False, [(True, True), (False, False)], INVALID_BOOLEANS),
    "TRUSTED_PROXIES": (0, [(1, 1), (10, 10)], [*INVALID_INTEGERS, 11, None]),
}

GOOD = [(name, value, read) for name, (_, good, _) in TABLE.items() for value, read in good]
BAD = [(name, value) for name, (_, _, bad) in TABLE.items() for value in bad]


def setting(name: str) -> Any:
    return getattr(conf, SETTINGS[name])


@pytest.fixture(autouse=True)
def bare_project() -> Any:
    with override_settings(INSTACCESS={}, SECRET_KEY="the-secret", SECRET_KEY_FALLBACKS=[]):
        yield


class TestTheTableOfSettings:
    def test_every_setting_is_in_the_table_of_this_file(self):
        assert set(TABLE) == set(SETTINGS)

    def test_every_setting_has_its_own_check_id(self):
        assert set(conf_checks.BAD_SETTING_IDS) == set(SETTINGS)
        assert len(set(conf_checks.BAD_SETTING_IDS.values())) == len(SETTINGS)

    def test_every_setting_has_a_docstring(self):
        assert [name for name in SETTINGS if not getattr(type(conf), SETTINGS[name]).__doc__] == []


class TestASetting:
    @pytest.mark.parametrize("name", TABLE)
    def test_setting_has_the_default_in_the_table_of_this_file(self, name):
        assert setting(name) == TABLE[name][0]

    @pytest.mark.parametrize("name", TABLE)
    def test_setting_has_its_default_if_the_project_has_no_instaccess_dictionary(self, name, settings):
        del settings.INSTACCESS

        assert setting(name) == TABLE[name][0]

    @pytest.mark.parametrize(("name", "value", "read"), GOOD)
    def test_setting_accepts_a_valid_value(self, name, value, read):
        with override_settings(INSTACCESS={name: value}):
            assert setting(name) == read

    @pytest.mark.parametrize(("name", "value"), BAD)
    def test_setting_refuses_an_invalid_value_and_the_error_names_the_setting(self, name, value):
        with (
            override_settings(INSTACCESS={name: value}),
            pytest.raises(ConfigError) as error,
        ):
            setting(name)

        assert error.value.setting == name
        assert f"INSTACCESS['{name}']" in error.value.detail

    @pytest.mark.parametrize("name", TABLE)
    def test_setting_is_read_at_each_access(self, name):
        default, good, _ = TABLE[name]
        for value, read in good:
            with override_settings(INSTACCESS={name: value}):
                assert setting(name) == read
            assert setting(name) == default


class TestTheAcceptedIssuers:
    def test_c12_accepted_issuers_contain_only_the_issuer_by_default(self):
        with override_settings(INSTACCESS={"ISSUER": "ours"}):
            assert conf.accepted_issuers == ["ours"]

    def test_c12_accepted_issuers_do_not_change_the_issuer_of_issued_tokens(self):
        with override_settings(INSTACCESS={"ACCEPTED_ISSUERS": ["theirs"]}):
            assert conf.issuer == "instructure:inst_access"


class TestTheInstaccessDictionary:
    @pytest.mark.parametrize("value", [None, [], [("LIFETIME", 60)], "LIFETIME", 1, {"LIFETIME"}])
    def test_conf_refuses_an_instaccess_setting_that_is_not_a_dictionary(self, value):
        with (
            override_settings(INSTACCESS=value),
            pytest.raises(ConfigError, match="INSTACCESS must be a dictionary"),
        ):
            _ = conf.lifetime

    def test_a1_conf_refuses_a_mapping_that_is_not_a_dictionary(self):
        # Django hides secrets only in a `dict`, so error reports would print this mapping with all secrets.
        with override_settings(INSTACCESS=MappingProxyType({"LIFETIME": 60})), pytest.raises(ConfigError):
            _ = conf.lifetime

    @pytest.mark.parametrize("kind", [dict, OrderedDict])
    def test_conf_accepts_any_dictionary_as_the_instaccess_setting(self, kind):
        with override_settings(INSTACCESS=kind({"LIFETIME": 60})):
            assert conf.lifetime == 60


class TestAConfOfAGivenDictionary:
    def test_conf_of_a_dictionary_does_not_read_the_settings_of_the_project(self):
        with override_settings(INSTACCESS={"LIFETIME": 60, "REALM": "project"}):
            given = Conf({"LIFETIME": 120})

            assert (given.lifetime, given.realm) == (120, "canvas-lms")
            assert (conf.lifetime, conf.realm) == (60, "project")

    def test_conf_of_a_dictionary_uses_later_changes_of_the_dictionary(self):
        written = {"LIFETIME": 60}
        given = Conf(written)
        written["LIFETIME"] = 120

        assert given.lifetime == 120


class TestTheKeyAlgorithmsOfAReader:
    @pytest.mark.parametrize("alg", ["RSA-OAEP", "RSA-OAEP-256"])
    def test_key_algorithms_exclude_rsa1_5_by_default(self, alg):
        with override_settings(INSTACCESS={"ENCRYPTION_ALG": alg}):
            assert conf.key_algorithms == ("RSA-OAEP", "RSA-OAEP-256")

    def test_key_algorithms_include_rsa1_5_if_the_setting_encryption_alg_is_rsa1_5(self):
        with override_settings(INSTACCESS={"ENCRYPTION_ALG": "RSA1_5"}):
            assert conf.key_algorithms == ("RSA-OAEP", "RSA-OAEP-256", "RSA1_5")

    def test_key_algorithms_are_not_a_setting(self):
        assert "KEY_ALGORITHMS" not in SETTINGS


class TestTheSettingForKeyEncryptionKeys:
    @pytest.mark.parametrize("value", TABLE["KEY_ENCRYPTION_KEYS"][2], ids=repr)
    def test_a1_error_about_key_encryption_keys_contains_no_key(self, value):
        with (
            override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": value}),
            pytest.raises(ConfigError) as error,
        ):
            _ = conf.key_encryption_keys

        texts = str(error.value) + repr(error.value) + repr(error.value.__cause__)
        for secret in (
            b64(ONE)[:20],
            b64(ONE)[20:],
            b64(ONE[:31])[:20],
            repr(ONE),
            "é" * 43,
            "!" * 43,
        ):
            assert secret not in texts
        # A traceback also prints the cause and the context of an error, so neither may contain a key.
        assert error.value.__cause__ is None
        assert error.value.__context__ is None or error.value.__suppress_context__

    def test_default_key_encryption_keys_are_derived_from_secret_key_and_its_fallbacks_in_order(self):
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old", "oldest"]):
            assert conf.key_encryption_keys == [
                derived("new"),
                derived("old"),
                derived("oldest"),
            ]

    def test_o6_private_key_can_be_unsealed_after_a_change_of_secret_key_with_a_fallback(self, rsa_pool):
        private = rsa_pool.take_private("sig")
        kid = private.thumbprint()
        with override_settings(SECRET_KEY="old"):
            sealed = sealing.seal(private, kid=kid, use="sig", keks=conf.key_encryption_keys)

        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
            assert sealing.unseal(sealed, kid=kid, use="sig", keks=conf.key_encryption_keys).thumbprint() == kid

    def test_conf_accepts_configured_and_derived_key_encryption_keys_together(self):
        with override_settings(
            SECRET_KEY_FALLBACKS=["old"],
            INSTACCESS={"KEY_ENCRYPTION_KEYS": [b64(ONE), "SECRET_KEY", b64(TWO)]},
        ):
            assert conf.key_encryption_keys == [
                KEK_ONE,
                derived("the-secret"),
                derived("old"),
                KEK_TWO,
            ]

    def test_key_encryption_key_is_never_secret_key_itself(self):
        with override_settings(SECRET_KEY="x" * 32):
            assert conf.key_encryption_keys != [KeyEncryptionKey(b"x" * 32)]

    @pytest.mark.parametrize(
        ("value", "answer"),
        [
            ([DERIVED], True),
            ((DERIVED,), True),
            ([DERIVED, b64(ONE)], True),
            ([b64(ONE)], False),
            ([b64(ONE), DERIVED], False),
        ],
    )
    def test_key_encryption_keys_count_as_derived_if_the_first_key_is_derived(self, value, answer):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": value}):
            assert conf.key_encryption_keys_are_derived is answer

    def test_key_encryption_keys_are_derived_by_default(self):
        assert conf.key_encryption_keys_are_derived is True

    def test_conf_accepts_a_key_encryption_key_from_the_command_in_the_error(self):
        # Generate the key as in the command that the error and the check recommend.
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}):
            assert len(conf.key_encryption_keys[0].reveal()) == 32


class TestASecretInAnInvalidSetting:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("SERVICE_SECRETS", ["a-service-secret"]),
            ("SERVICE_SECRETS", "a-service-secret"),
            ("DECRYPTION_KEYS", "a-service-secret"),
            ("DECRYPTION_KEYS", [b"a-service-secret"]),
        ],
    )
    def test_a1_error_about_an_invalid_setting_contains_no_secret(self, name, value):
        with override_settings(INSTACCESS={name: value}), pytest.raises(ConfigError) as error:
            setting(name)

        assert "a-service-secret" not in str(error.value) + repr(error.value)


class TestASettingWithAnHttpUrl:
    @pytest.mark.parametrize("name", ["VERIFICATION_KEYS", "DENY_LIST"])
    def test_c10_conf_refuses_an_http_url_unless_allow_http_urls_is_set(self, name):
        with override_settings(INSTACCESS={name: "http://issuer.example/"}), pytest.raises(ConfigError) as error:
            setting(name)
        assert "ALLOW_HTTP_URLS" in error.value.detail

        with override_settings(INSTACCESS={name: "http://issuer.example/", "ALLOW_HTTP_URLS": True}):
            assert setting(name) == "http://issuer.example/"

    @pytest.mark.parametrize("url", ["ftp://issuer.example/", "file:///etc/passwd", "issuer.example"])
    def test_conf_refuses_other_url_schemes_even_if_http_is_allowed(self, url):
        with (
            override_settings(INSTACCESS={"DENY_LIST": url, "ALLOW_HTTP_URLS": True}),
            pytest.raises(ConfigError, match="DENY_LIST"),
        ):
            _ = conf.deny_list


class TestTheKeyLifecycleSettings:
    def test_default_key_lead_time_is_jwks_max_age_plus_key_cache_seconds(self):
        with override_settings(INSTACCESS={"JWKS_MAX_AGE": 600, "KEY_CACHE_SECONDS": 5}):
            assert conf.key_lead_seconds == 605

    def test_key_retention_covers_the_maximum_lifetime_even_if_lifetime_is_shorter(self):
        with override_settings(INSTACCESS={"LIFETIME": 60, "LEEWAY": 300, "KEY_CACHE_SECONDS": 5}):
            assert conf.key_retention_seconds == 3600 + 60 + 300 + 5

    def test_conf_refuses_a_key_lead_time_below_its_minimum(self):
        with (
            override_settings(INSTACCESS={"JWKS_MAX_AGE": 600, "KEY_LEAD_SECONDS": 602}),
            pytest.raises(ConfigError) as error,
        ):
            _ = conf.key_lead_seconds
        assert error.value.setting == "KEY_LEAD_SECONDS"
        assert "603" in error.value.detail

    @pytest.mark.parametrize("lead", [86_400, 86_401])
    def test_conf_refuses_a_key_rotation_interval_that_is_not_longer_than_the_lead_time(self, lead):
        with (
            override_settings(INSTACCESS={"KEY_ROTATION_DAYS": 1, "KEY_LEAD_SECONDS": lead}),
            pytest.raises(ConfigError) as error,
        ):
            _ = conf.key_rotation_days
        assert error.value.setting == "KEY_ROTATION_DAYS"

    def test_conf_accepts_a_key_rotation_interval_that_is_a_second_longer_than_the_lead_time(self):
        with override_settings(INSTACCESS={"KEY_ROTATION_DAYS": 1, "KEY_LEAD_SECONDS": 86_399}):
            assert conf.key_rotation_days == 1

    def test_error_names_the_invalid_setting_that_other_settings_depend_on(self):
        with override_settings(INSTACCESS={"JWKS_MAX_AGE": "300"}):
            for name in ("KEY_LEAD_SECONDS", "KEY_ROTATION_DAYS"):
                with pytest.raises(ConfigError) as error:
                    setting(name)
                assert error.value.setting == "JWKS_MAX_AGE"


class TestTheTimeForWhichAProxyMayKeepADecision:
    @pytest.mark.parametrize(("deny_list", "longest"), [(0, 3), (1, 2), (2, 1), (3, 0), (4, 0)])
    def test_g35_keep_decision_seconds_is_limited_so_that_a_revocation_takes_effect_within_five_seconds(
        self, deny_list, longest
    ):
        with override_settings(INSTACCESS={"DENY_LIST_SECONDS": deny_list, "KEEP_DECISION_SECONDS": longest}):
            assert conf.keep_decision_seconds == longest
        assert longest == 0 or deny_list + longest + KEEPING_SLACK == REVOCATION_SECONDS

        with (
            override_settings(INSTACCESS={"DENY_LIST_SECONDS": deny_list, "KEEP_DECISION_SECONDS": longest + 1}),
            pytest.raises(ConfigError, match=f"from 0 to {longest} if DENY_LIST_SECONDS is {deny_list}, because"),
        ):
            _ = conf.keep_decision_seconds

    def test_error_of_keep_decision_seconds_names_deny_list_seconds_if_deny_list_seconds_is_invalid(self):
        with (
            override_settings(INSTACCESS={"DENY_LIST_SECONDS": 5, "KEEP_DECISION_SECONDS": 1}),
            pytest.raises(ConfigError) as error,
        ):
            _ = conf.keep_decision_seconds

        assert error.value.setting == "DENY_LIST_SECONDS"
