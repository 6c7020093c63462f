"""Who a token is about, and which account a host serves."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import override_settings
from django.utils.functional import SimpleLazyObject

from instaccess import users
from instaccess.exceptions import ConfigError
from instaccess.models import UserIdentity
from instaccess.web import origin

User = get_user_model()


@pytest.mark.django_db
class TestTheUuidOfAUser:
    def test_is_random_and_made_on_first_need(self, user):
        assert not UserIdentity.objects.exists()

        made = users.user_uuid(user)

        assert uuid.UUID(made).version == 4
        assert str(UserIdentity.objects.get(user=user).uuid) == made

    def test_stays_the_same_for_ever(self, user):
        first = users.user_uuid(user)

        assert users.user_uuid(user) == first
        assert users.user_uuid(User.objects.get(pk=user.pk)) == first

    def test_is_another_for_another_user(self, user):
        other = User.objects.create_user("grace")

        assert users.user_uuid(user) != users.user_uuid(other)

    def test_is_not_given_to_a_later_user_with_the_same_name_or_key(self, user):
        first, pk = users.user_uuid(user), user.pk
        user.delete()

        assert users.user_uuid(User.objects.create_user("ada", pk=pk)) != first

    def test_costs_no_query_when_it_was_loaded_with_the_user(self, user, django_assert_num_queries):
        first = users.user_uuid(user)
        loaded = User.objects.select_related("instaccess_identity").get(pk=user.pk)

        with django_assert_num_queries(0):
            assert users.user_uuid(loaded) == first

    def test_is_found_when_somebody_else_made_it_meanwhile(self, user):
        # Loaded before there was one: the row that is missing in memory is there in the database.
        stale = User.objects.select_related("instaccess_identity").get(pk=user.pk)
        first = users.user_uuid(user)

        assert users.user_uuid(stale) == first

    def test_is_read_of_a_lazy_request_user_too(self, user):
        assert users.user_uuid(SimpleLazyObject(lambda: user)) == users.user_uuid(user)


@pytest.mark.django_db(transaction=True)
class TestManyWhoNeedTheUuidOfOneUserAtOnce:
    def test_all_get_the_same(self, user):
        start = threading.Barrier(8)
        made: list[str] = []

        def need() -> None:
            try:
                own = User.objects.get(pk=user.pk)
                start.wait(30)
                made.append(users.user_uuid(own))
            finally:
                connection.close()

        threads = [threading.Thread(target=need) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(made) == 8
        assert set(made) == {str(UserIdentity.objects.get().uuid)}


@pytest.mark.django_db
class TestAFieldOfTheUserModelAsTheUuid:
    @pytest.fixture(autouse=True)
    def email_is_the_uuid(self) -> Any:
        with override_settings(INSTACCESS={"USER_UUID_FIELD": "email"}):
            yield

    def test_is_read_and_nothing_is_written(self, user, django_assert_num_queries):
        user.email = "2f0c7c0e-0f5e-4df4-8f43-7a1b2f8f4a10"

        with django_assert_num_queries(0):
            assert users.user_uuid(user) == user.email
        assert not UserIdentity.objects.exists()

    def test_is_read_of_a_lazy_request_user_too(self, user):
        user.email = "uuid-of-ada"

        assert users.user_uuid(SimpleLazyObject(lambda: user)) == "uuid-of-ada"

    def test_may_hold_a_uuid_object(self, user):
        user.email = uuid.UUID(int=7)

        assert users.user_uuid(user) == "00000000-0000-0000-0000-000000000007"

    @pytest.mark.parametrize("value", ["", None, "x" * 256])
    def test_is_no_uuid_when_empty_or_too_long(self, value, user):
        user.email = value

        with pytest.raises(ConfigError, match="USER_UUID_FIELD") as error:
            users.user_uuid(user)

        assert error.value.setting == "USER_UUID_FIELD"
        assert f"user {user.pk}" in error.value.detail

    def test_is_a_fault_of_the_settings_when_there_is_no_such_field(self, user):
        # `get_full_name` is an attribute of a user, but no field: two users may well share it.
        with (
            override_settings(INSTACCESS={"USER_UUID_FIELD": "get_full_name"}),
            pytest.raises(ConfigError, match=r"'get_full_name', which is not a field of auth\.User") as error,
        ):
            users.user_uuid(user)

        assert error.value.setting == "USER_UUID_FIELD"


@pytest.mark.django_db
class TestTheUserOfAUuid:
    def test_is_found_by_the_uuid_that_tokens_carry(self, user):
        assert users.active_user(users.user_uuid(user)) == user

    def test_is_found_with_one_query_and_nothing_is_written(self, user, django_assert_num_queries):
        text = users.user_uuid(user)

        with django_assert_num_queries(1):
            assert users.active_user(text) == user

    def test_c6_is_none_when_inactive(self, user):
        text = users.user_uuid(user)
        user.is_active = False
        user.save()

        assert users.active_user(text) is None

    @pytest.mark.parametrize(
        "text", ["", "ada", "1", str(uuid.UUID(int=1)), "' OR 1=1 --", "a\x00b", "\ud800", "x" * 9000]
    )
    def test_c6_is_none_when_unknown_or_no_uuid(self, text, user):
        users.user_uuid(user)

        assert users.active_user(text) is None

    def test_c6_is_none_for_another_spelling_of_the_uuid(self, user):
        text = users.user_uuid(user)

        for spelling in (text.replace("-", ""), f"{{{text}}}", f"urn:uuid:{text}", f" {text}"):
            assert users.active_user(spelling) is None

    def test_may_be_found_by_a_field(self, user):
        with override_settings(INSTACCESS={"USER_UUID_FIELD": "username"}):
            assert users.active_user("ada") == user
            assert users.active_user("Ada") is None
            for odd in ("", "a\x00b", "x" * 9000):
                assert users.active_user(odd) is None

    def test_c6_is_none_where_two_share_it(self, user):
        # Nothing says that the field is unique; a guess could be the wrong person.
        User.objects.create_user("grace", email="shared@example.edu")
        User.objects.create_user("mary", email="shared@example.edu")

        with override_settings(INSTACCESS={"USER_UUID_FIELD": "email"}):
            assert users.active_user("shared@example.edu") is None


class TestTheAccountOfAHost:
    def test_follows_from_its_name_and_stays_the_same(self):
        assert origin.account_uuid("canvas.example.edu") == str(uuid.uuid5(uuid.NAMESPACE_DNS, "canvas.example.edu"))

    def test_is_another_for_another_host(self):
        assert origin.account_uuid("a.example.edu") != origin.account_uuid("b.example.edu")

    @pytest.mark.parametrize(
        ("with_port", "without"),
        [("canvas.example.edu:8443", "canvas.example.edu"), ("[::1]:8000", "[::1]"), ("127.0.0.1:80", "127.0.0.1")],
    )
    def test_does_not_depend_on_the_port(self, with_port, without):
        assert origin.account_uuid(with_port) == origin.account_uuid(without)

    def test_of_two_ipv6_addresses_differ(self):
        assert origin.account_uuid("[::1]") != origin.account_uuid("[::2]")

    def test_is_what_the_setting_says_for_every_host(self):
        with override_settings(INSTACCESS={"ACCOUNT_UUID": "the-account"}):
            assert origin.account_uuid("a.example.edu") == origin.account_uuid("b.example.edu") == "the-account"

    def test_is_what_the_hook_says_with_the_port_it_was_asked_at(self):
        with override_settings(INSTACCESS={"ACCOUNT_HOOK": lambda host: f"account of {host}"}):
            assert origin.account_uuid("a.example.edu:8443") == "account of a.example.edu:8443"

    def test_is_the_settings_before_the_hooks(self):
        with override_settings(INSTACCESS={"ACCOUNT_UUID": "the-account", "ACCOUNT_HOOK": str.upper}):
            assert origin.account_uuid("a.example.edu") == "the-account"

    @pytest.mark.parametrize("value", [None, "", 1, uuid.UUID(int=1), "x" * 256, ["account"]])
    def test_is_a_fault_of_the_hook_where_it_returns_no_usable_text(self, value):
        with (
            override_settings(INSTACCESS={"ACCOUNT_HOOK": lambda host: value}),
            pytest.raises(ConfigError, match="ACCOUNT_HOOK") as error,
        ):
            origin.account_uuid("a.example.edu")

        assert error.value.setting == "ACCOUNT_HOOK"
