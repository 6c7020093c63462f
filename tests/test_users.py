"""Tests of the uuids of users, of masquerading, and of the accounts of hosts."""

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
    def test_user_uuid_is_random_and_created_when_first_needed(self, user):
        assert not UserIdentity.objects.exists()

        created = users.user_uuid(user)

        assert uuid.UUID(created).version == 4
        assert str(UserIdentity.objects.get(user=user).uuid) == created

    def test_user_uuid_is_the_same_in_every_call(self, user):
        first = users.user_uuid(user)

        assert users.user_uuid(user) == first
        assert users.user_uuid(User.objects.get(pk=user.pk)) == first

    def test_two_users_have_different_uuids(self, user):
        other = User.objects.create_user("grace")

        assert users.user_uuid(user) != users.user_uuid(other)

    def test_user_uuid_is_not_reused_for_a_later_user_with_the_same_name_and_primary_key(self, user):
        first, pk = users.user_uuid(user), user.pk
        user.delete()

        assert users.user_uuid(User.objects.create_user("ada", pk=pk)) != first

    def test_user_uuid_needs_no_query_if_loaded_with_the_user(self, user, django_assert_num_queries):
        first = users.user_uuid(user)
        loaded = User.objects.select_related("instaccess_identity").get(pk=user.pk)

        with django_assert_num_queries(0):
            assert users.user_uuid(loaded) == first

    def test_user_uuid_finds_a_uuid_that_another_process_created(self, user):
        # This user was loaded before the uuid was created, so only the database contains the uuid.
        stale = User.objects.select_related("instaccess_identity").get(pk=user.pk)
        first = users.user_uuid(user)

        assert users.user_uuid(stale) == first

    def test_lazy_user_has_the_uuid_of_the_wrapped_user(self, user):
        assert users.user_uuid(SimpleLazyObject(lambda: user)) == users.user_uuid(user)


@pytest.mark.django_db(transaction=True)
class TestConcurrentCreationOfAUuid:
    def test_concurrent_threads_get_the_same_uuid(self, user):
        start = threading.Barrier(8)
        created: list[str] = []

        def create_uuid() -> None:
            try:
                own = User.objects.get(pk=user.pk)
                start.wait(30)
                created.append(users.user_uuid(own))
            finally:
                connection.close()

        threads = [threading.Thread(target=create_uuid) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(created) == 8
        assert set(created) == {str(UserIdentity.objects.get().uuid)}


@pytest.mark.django_db
class TestUserUuidField:
    @pytest.fixture(autouse=True)
    def email_is_the_uuid(self) -> Any:
        with override_settings(INSTACCESS={"USER_UUID_FIELD": "email"}):
            yield

    def test_user_uuid_field_is_read_without_a_query(self, user, django_assert_num_queries):
        user.email = "2f0c7c0e-0f5e-4df4-8f43-7a1b2f8f4a10"

        with django_assert_num_queries(0):
            assert users.user_uuid(user) == user.email
        assert not UserIdentity.objects.exists()

    def test_user_uuid_field_of_a_lazy_user_is_read(self, user):
        user.email = "uuid-of-ada"

        assert users.user_uuid(SimpleLazyObject(lambda: user)) == "uuid-of-ada"

    def test_user_uuid_field_may_contain_a_uuid_object(self, user):
        user.email = uuid.UUID(int=7)

        assert users.user_uuid(user) == "00000000-0000-0000-0000-000000000007"

    @pytest.mark.parametrize("value", ["", None, "x" * 256])
    def test_user_uuid_field_that_is_empty_or_too_long_raises_config_error(self, value, user):
        user.email = value

        with pytest.raises(ConfigError, match="USER_UUID_FIELD") as error:
            users.user_uuid(user)

        assert error.value.setting == "USER_UUID_FIELD"
        assert f"user {user.pk}" in error.value.detail

    def test_user_uuid_field_that_names_no_field_of_the_user_model_raises_config_error(self, user):
        # `get_full_name` is a method. The app refuses an attribute that isn't a field, because the attribute can be
        # equal for two users.
        with (
            override_settings(INSTACCESS={"USER_UUID_FIELD": "get_full_name"}),
            pytest.raises(ConfigError, match=r"'get_full_name', which is not a field of auth\.User") as error,
        ):
            users.user_uuid(user)

        assert error.value.setting == "USER_UUID_FIELD"


@pytest.mark.django_db
class TestAnInvalidUserUuidField:
    @pytest.fixture(autouse=True)
    def invalid_setting(self, settings: Any) -> None:
        settings.INSTACCESS = {"USER_UUID_FIELD": 7}

    def test_loaded_uuid_is_empty_if_user_uuid_field_is_invalid(self, user):
        assert users.loaded_uuid(user) == ""

    def test_existing_uuid_is_read_from_the_identity_if_user_uuid_field_is_invalid(self, user):
        identity = UserIdentity.objects.create(user=user)

        assert users.existing_uuid(user) == str(identity.uuid)
        assert users.user_relations("user") == ["user__instaccess_identity"]


@pytest.mark.django_db
class TestTheDisplayNameOfAUser:
    def test_display_name_is_the_current_name_of_the_user(self, user):
        assert users.display_name(user, users.user_uuid(user), "earlier name") == "ada"

    def test_display_name_is_none_if_the_user_does_not_have_the_uuid(self, user):
        users.user_uuid(user)

        assert users.display_name(user, str(uuid.UUID(int=1)), "grace") is None

    def test_display_name_of_a_deleted_user_is_the_recorded_name(self):
        assert users.display_name(None, str(uuid.UUID(int=1)), "grace") == "grace"
        assert users.display_name(None, str(uuid.UUID(int=1))) is None


class TestTheNameOfAUser:
    def test_a_long_name_is_shortened_to_the_length_of_its_column(self):
        assert users.user_name(User(username="x" * 300)) == "x" * 255

    def test_user_name_is_empty_for_a_user_without_a_name(self):
        assert users.user_name(User(username=None)) == ""


@pytest.mark.django_db
class TestActiveUser:
    def test_active_user_finds_the_user_of_a_uuid(self, user):
        assert users.active_user(users.user_uuid(user)) == user

    def test_active_user_needs_one_query(self, user, django_assert_num_queries):
        text = users.user_uuid(user)

        with django_assert_num_queries(1):
            assert users.active_user(text) == user

    def test_c6_active_user_is_none_for_an_inactive_user(self, user):
        text = users.user_uuid(user)
        user.is_active = False
        user.save()

        assert users.active_user(text) is None

    @pytest.mark.parametrize(
        "text", ["", "ada", "1", str(uuid.UUID(int=1)), "' OR 1=1 --", "a\x00b", "\ud800", "x" * 9000]
    )
    def test_c6_active_user_is_none_for_an_unknown_or_invalid_uuid(self, text, user):
        users.user_uuid(user)

        assert users.active_user(text) is None

    def test_c6_active_user_is_none_for_a_non_canonical_uuid(self, user):
        text = users.user_uuid(user)

        for non_canonical in (text.replace("-", ""), f"{{{text}}}", f"urn:uuid:{text}", f" {text}"):
            assert users.active_user(non_canonical) is None

    def test_active_user_finds_a_user_by_user_uuid_field(self, user):
        with override_settings(INSTACCESS={"USER_UUID_FIELD": "username"}):
            assert users.active_user("ada") == user
            assert users.active_user("Ada") is None
            for invalid in ("", "a\x00b", "x" * 9000):
                assert users.active_user(invalid) is None

    def test_c6_active_user_is_none_if_two_users_share_the_uuid(self, user):
        # The field can contain one value for two users. If one of these users were returned, a token could
        # authenticate the wrong user.
        User.objects.create_user("grace", email="shared@example.edu")
        User.objects.create_user("mary", email="shared@example.edu")

        with override_settings(INSTACCESS={"USER_UUID_FIELD": "email"}):
            assert users.active_user("shared@example.edu") is None


class Member:
    """A user of a custom user model with permissions. The fields `is_superuser` and `is_staff` are optional."""

    is_active = True

    def __init__(self, *permissions: str, **columns: bool) -> None:
        self.permissions = set(permissions)
        vars(self).update(columns)

    def has_perm(self, permission: str) -> bool:
        return permission in self.permissions

    def get_all_permissions(self) -> set[str]:
        return self.permissions


class TestAUserModelWithoutSuperusersAndStaff:
    def test_caller_with_every_permission_of_the_target_may_masquerade(self):
        caller = Member("instaccess.masquerade", "auth.view_user")

        assert users.may_masquerade(caller, Member("auth.view_user"))

    def test_p19_caller_may_not_masquerade_without_the_permission(self):
        assert not users.may_masquerade(Member("auth.view_user"), Member("auth.view_user"))

    def test_p19_caller_may_not_masquerade_as_a_target_with_more_permissions(self):
        assert not users.may_masquerade(Member("instaccess.masquerade"), Member("auth.view_user"))

    def test_p23_caller_may_not_masquerade_as_staff(self):
        assert not users.may_masquerade(Member("instaccess.masquerade"), Member(is_staff=True))

    def test_p19_caller_may_not_masquerade_as_a_target_who_is_a_superuser(self):
        assert not users.may_masquerade(Member("instaccess.masquerade"), Member(is_superuser=True))

    def test_no_user_may_masquerade_without_authentication_backends(self, settings):
        settings.AUTHENTICATION_BACKENDS = []

        assert not users.may_masquerade(Member("instaccess.masquerade"), Member())


class TestTheAccountOfAHost:
    def test_account_is_derived_from_the_name_of_the_host(self):
        assert origin.account_uuid("canvas.example.edu") == str(uuid.uuid5(uuid.NAMESPACE_DNS, "canvas.example.edu"))

    def test_two_hosts_have_different_accounts(self):
        assert origin.account_uuid("a.example.edu") != origin.account_uuid("b.example.edu")

    @pytest.mark.parametrize(
        ("with_port", "without"),
        [("canvas.example.edu:8443", "canvas.example.edu"), ("[::1]:8000", "[::1]"), ("127.0.0.1:80", "127.0.0.1")],
    )
    def test_account_of_a_host_does_not_depend_on_the_port(self, with_port, without):
        assert origin.account_uuid(with_port) == origin.account_uuid(without)

    def test_two_ipv6_addresses_have_different_accounts(self):
        assert origin.account_uuid("[::1]") != origin.account_uuid("[::2]")

    def test_account_uuid_setting_applies_to_every_host(self):
        with override_settings(INSTACCESS={"ACCOUNT_UUID": "the-account"}):
            assert origin.account_uuid("a.example.edu") == origin.account_uuid("b.example.edu") == "the-account"

    @pytest.mark.parametrize(
        ("host", "name"),
        [("a.example.edu:31337", "a.example.edu"), ("a.example.edu", "a.example.edu"), ("[::1]:8000", "[::1]")],
    )
    def test_p25_account_hook_gets_the_name_of_the_host_without_the_port(self, host, name):
        with override_settings(INSTACCESS={"ACCOUNT_HOOK": lambda host: f"account of {host}"}):
            assert origin.account_uuid(host) == f"account of {name}"

    def test_account_uuid_setting_takes_precedence_over_account_hook(self):
        with override_settings(INSTACCESS={"ACCOUNT_UUID": "the-account", "ACCOUNT_HOOK": str.upper}):
            assert origin.account_uuid("a.example.edu") == "the-account"

    @pytest.mark.parametrize("value", [None, "", 1, uuid.UUID(int=1), "x" * 256, ["account"]])
    def test_account_hook_with_an_invalid_result_raises_config_error(self, value):
        with (
            override_settings(INSTACCESS={"ACCOUNT_HOOK": lambda host: value}),
            pytest.raises(ConfigError, match="ACCOUNT_HOOK") as error,
        ):
            origin.account_uuid("a.example.edu")

        assert error.value.setting == "ACCOUNT_HOOK"
