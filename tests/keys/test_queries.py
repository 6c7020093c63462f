"""Tests of `queries`: the problems of key rows, unreadable key rows, and the errors for an abbreviated kid."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import override_settings

from instaccess.exceptions import ConfigError, KeyAltered, KeyUnavailable, UnsealError
from instaccess.keys import lifecycle, queries
from instaccess.models import Key
from tests.keys.helpers import ENC, SIG, key_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]


class TestTheProblemOfARow:
    def test_problem_is_none_for_an_authentic_key_row(self):
        assert queries.problem(key_of(SIG, "current")) is None

    def test_problem_is_a_key_altered_error_for_a_modified_key_row(self):
        Key.objects.filter(use=SIG).update(alg="odd")

        assert isinstance(queries.problem(key_of(SIG, "current")), KeyAltered)

    def test_problem_of_a_key_row_is_an_unseal_error_if_its_key_encryption_key_is_missing(self):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
            assert isinstance(queries.problem(key_of(SIG, "current")), UnsealError)

    def test_problem_is_a_config_error_for_every_key_row_if_the_setting_is_invalid(self):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["too short"]}):
            assert isinstance(queries.problem(key_of(SIG, "current")), ConfigError)


class TestUnreadableRows:
    def test_unreadable_rows_returns_the_primary_keys_of_rows_with_invalid_values(self):
        assert queries.unreadable_rows() == []
        pk = key_of(SIG, "future").pk
        with connection.cursor() as cursor:
            # Django can't read this row, because Python refuses to parse an integer with 5000 digits.
            cursor.execute("UPDATE instaccess_key SET public_jwk = %s WHERE id = %s", ["1" * 5000, pk])

        assert queries.unreadable_rows() == [pk]


class TestFindKey:
    @pytest.mark.parametrize("kid", ["", "x", "short"])
    def test_error_for_a_short_kid_names_the_minimum_length(self, kid):
        with pytest.raises(KeyUnavailable) as caught:
            queries.find_key(kid)

        assert caught.value.detail == (
            f"there is no key {kid!r}: give the key id or at least its first 6 characters. "
            "`python manage.py instaccess_keys list` shows the ids"
        )

    @pytest.mark.parametrize("kid", ["absent", "absent-kid"])
    def test_error_for_an_unknown_kid_names_the_command_that_lists_the_keys(self, kid):
        with pytest.raises(KeyUnavailable) as caught:
            queries.find_key(kid)

        assert caught.value.detail == (
            f"there is no key {kid!r}: run `python manage.py instaccess_keys list`, which shows the ids"
        )

    def test_find_key_finds_an_inserted_row_by_a_kid_under_six_characters(self):
        Key.objects.filter(use=ENC).update(kid="x")

        assert queries.find_key("x").use == ENC


class TestARotationWithAModifiedKeyOfTheOtherUse:
    def test_rotation_of_signing_keys_does_not_log_the_problem_of_a_modified_encryption_key(self, caplog):
        Key.objects.filter(use=ENC).update(alg="odd")
        lifecycle.rotate(SIG, force=True)

        assert "a key was skipped" not in caplog.text
