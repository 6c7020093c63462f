"""Tests of the errors about invalid, unknown and unreadable settings: what they reveal, and what they suggest."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from instaccess.conf import conf
from instaccess.exceptions import ConfigError


def error_of(instaccess: Any) -> ConfigError:
    """Read the setting LIFETIME with the given value of INSTACCESS, and return the ConfigError."""
    with override_settings(INSTACCESS=instaccess), pytest.raises(ConfigError) as error:
        _ = conf.lifetime
    return error.value


class TestTheErrorAboutAnInvalidValue:
    @pytest.mark.parametrize(
        ("value", "end"),
        [
            (3601, "3600 (it is 3601)"),
            (True, "3600 (it is True)"),
            (None, "3600 (it is None)"),
            (1.5, "3600 (it is of type float)"),
            (b"a secret", "3600 (it is of type bytes)"),
            ({"a": "secret"}, "3600 (it is of type dict)"),
            ("a secret", "3600"),
            (["a secret"], "3600"),
            (("a secret",), "3600"),
        ],
    )
    def test_a1_error_about_an_invalid_value_shows_only_integers_truth_values_and_none(self, value, end):
        error = error_of({"LIFETIME": value})

        assert error.detail == f"INSTACCESS['LIFETIME'] must be an integer from 1 to {end}"
        assert error.setting == "LIFETIME"

    def test_error_about_verification_keys_that_are_neither_a_url_nor_a_list_describes_both(self):
        with override_settings(INSTACCESS={"VERIFICATION_KEYS": "/keys/a.pem"}), pytest.raises(ConfigError) as error:
            _ = conf.verification_keys

        assert "an https:// URL, or a list of keys" in error.value.detail


class TestTheErrorAboutAnUnknownSetting:
    def test_error_about_an_unknown_setting_names_the_setting_and_suggests_the_most_similar_name(self):
        error = error_of({"KEY_CACHE_SECOND": 1})

        assert "INSTACCESS['KEY_CACHE_SECOND'] is not a setting" in error.detail
        assert "Did you mean KEY_CACHE_SECONDS? " in error.detail
        assert error.setting == "KEY_CACHE_SECOND"

    def test_error_about_an_unknown_setting_suggests_nothing_if_no_name_is_similar(self):
        assert "Did you mean" not in error_of({"QQQQ": 1}).detail


class TestTheErrorAboutAnInstaccessSettingThatIsNotADictionary:
    def test_error_about_an_instaccess_setting_that_is_not_a_dictionary_names_instaccess(self):
        assert error_of(None).setting == "INSTACCESS"
