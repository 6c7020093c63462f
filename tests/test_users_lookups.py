"""Tests of the look-ups of users by uuid, by name and by primary key, and of the names of users and operators."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.test import override_settings

from instaccess import users
from instaccess.exceptions import MasqueradeRefused
from instaccess.models import UserIdentity

User = get_user_model()


def uuid_from(digit: str) -> str:
    """Return a uuid in which every digit is `digit`."""
    return str(uuid.UUID(digit * 32))


@pytest.fixture
def field(settings: Any) -> Any:
    """Return a function that sets USER_UUID_FIELD to the name of a field of the user model."""

    def use(name: str) -> None:
        settings.INSTACCESS = {"USER_UUID_FIELD": name}

    return use


class RecordingRouter:
    """A database router that records the `instance` hints. Routers of projects can choose a database by this hint."""

    def __init__(self) -> None:
        self.instances: list[Any] = []

    def db_for_write(self, model: Any, **hints: Any) -> None:
        self.instances.append(hints.get("instance"))


@pytest.mark.django_db
class TestANewUuid:
    def test_database_router_receives_the_user_to_choose_the_database_of_a_new_uuid(self, user, settings):
        router = RecordingRouter()
        settings.DATABASE_ROUTERS = [router]

        users.user_uuid(user)

        assert router.instances[0] is user

    def test_value_of_user_uuid_field_may_have_255_characters(self, user, field):
        field("email")
        user.email = "x" * 255

        assert users.user_uuid(user) == "x" * 255


@pytest.mark.django_db
class TestTheLoadedUuid:
    def test_loaded_uuid_is_the_uuid_that_was_loaded_with_the_user(self, user, django_assert_num_queries):
        known = users.user_uuid(user)
        loaded = User.objects.select_related("instaccess_identity").get(pk=user.pk)

        with django_assert_num_queries(0):
            assert users.loaded_uuid(loaded) == known

    @pytest.mark.parametrize("has_uuid", [True, False])
    def test_loaded_uuid_is_empty_if_no_uuid_was_loaded_with_the_user(
        self, user, has_uuid, django_assert_num_queries
    ):
        if has_uuid:
            users.user_uuid(user)
            loaded = User.objects.get(pk=user.pk)
        else:
            loaded = User.objects.select_related("instaccess_identity").get(pk=user.pk)

        with django_assert_num_queries(0):
            assert users.loaded_uuid(loaded) == ""

    def test_loaded_uuid_is_read_from_user_uuid_field_if_the_field_was_loaded(
        self, user, field, django_assert_num_queries
    ):
        field("username")
        deferred = User.objects.defer("username").get(pk=user.pk)

        with django_assert_num_queries(0):
            assert (users.loaded_uuid(user), users.loaded_uuid(deferred)) == ("ada", "")
            assert users.loaded_uuid(User(username=None)) == ""

    @pytest.mark.parametrize("user", [None, AnonymousUser(), SimpleNamespace(email="ada")])
    def test_loaded_uuid_of_a_user_without_a_database_row_is_empty(self, user, field):
        assert users.loaded_uuid(user) == ""
        field("email")
        assert users.loaded_uuid(user) == ""


@pytest.mark.django_db
class TestTheExistingUuid:
    def test_existing_uuid_of_a_user_without_a_uuid_is_empty_and_no_uuid_is_created(self, user):
        assert users.existing_uuid(user) == ""
        assert not UserIdentity.objects.exists()

    def test_existing_uuid_is_read_from_user_uuid_field(self, user, field):
        field("username")

        assert users.existing_uuid(user) == "ada"
        assert users.existing_uuid(User(username=None)) == ""

    def test_existing_uuid_is_empty_if_user_uuid_field_names_no_field(self, user, field):
        field("no_such_field")

        assert users.existing_uuid(user) == ""

    def test_user_relations_do_not_load_identities_if_the_uuids_are_in_a_field(self, field):
        assert users.user_relations("user", "real_user") == [
            "user__instaccess_identity",
            "real_user__instaccess_identity",
        ]
        field("username")
        assert users.user_relations("user", "real_user") == ["user", "real_user"]


class TestTheNameOfAUser:
    def test_name_of_a_user_without_get_username_is_read_from_the_field_of_the_user_name(self):
        assert users.user_name(SimpleNamespace(USERNAME_FIELD="login", login="ada")) == "ada"

    def test_name_of_an_operator_is_the_user_name_or_the_given_string(self):
        assert users.operator_name(User(username="x" * 300)) == "x" * 255
        assert users.operator_name("uid 0 (root), command line") == "uid 0 (root), command line"
        assert users.operator_name(None) == ""

    @pytest.mark.django_db
    @pytest.mark.parametrize("digit", ["0", "f"])
    def test_display_name_is_none_if_the_row_has_a_lower_or_higher_uuid_than_the_user(self, user, digit):
        UserIdentity.objects.create(user=user, uuid=uuid_from("7"))

        assert users.display_name(user, uuid_from(digit), "grace") is None
        assert users.display_name(user, uuid_from("7"), "grace") == "ada"


@pytest.mark.django_db
class TestALookUpByName:
    def test_look_up_by_name_finds_only_the_user_with_this_name(self, user):
        User.objects.create_user("grace")

        assert list(users.named("ada")) == [user]
        assert list(users.named("nobody")) == []

    @pytest.mark.parametrize("name", ["ada\x00", "\ud800"])
    def test_look_up_by_name_needs_no_query_for_a_name_that_no_column_can_store(
        self, user, name, django_assert_num_queries
    ):
        with django_assert_num_queries(0):
            assert list(users.named(name)) == []


@pytest.mark.django_db
class TestALookUpOfAnActiveUser:
    @pytest.mark.parametrize("name", ["last_login", "is_staff", "id"])
    @pytest.mark.parametrize("text", ["ada", "", "9" * 30, "9" * 5000, "\ud800"])
    def test_active_user_is_none_for_a_value_that_user_uuid_field_cannot_contain(self, user, field, name, text):
        field(name)

        assert users.active_user(text) is None

    def test_active_user_needs_no_query_for_a_uuid_that_no_column_can_store(
        self, user, field, django_assert_num_queries
    ):
        field("username")

        with django_assert_num_queries(0):
            assert users.active_user("ada\x00") is None


@pytest.mark.django_db
class TestALookUpOfManyUsers:
    def test_look_up_by_uuids_finds_active_and_inactive_users_with_one_query(self, user, django_assert_num_queries):
        inactive, other = (User.objects.create_user(name) for name in ("grace", "mary"))
        User.objects.filter(pk=inactive.pk).update(is_active=False)
        known = [users.user_uuid(each) for each in (user, inactive, other)]

        with django_assert_num_queries(1):
            found = users.with_uuids([*known[:2], uuid_from("7"), "ada", "", "a\x00b", "\ud800"])

        assert sorted(each.username for each in found) == ["ada", "grace"]

    def test_look_up_by_uuids_finds_no_user_by_a_non_canonical_uuid(self, user):
        known = users.user_uuid(user)

        assert users.with_uuids([known.replace("-", ""), f"urn:uuid:{known}", f"{{{known}}}"]) == []

    def test_look_up_by_uuids_finds_users_by_user_uuid_field_with_one_query(
        self, user, field, django_assert_num_queries
    ):
        field("username")
        User.objects.create_user("grace")

        with django_assert_num_queries(1):
            assert users.with_uuids(["ada", "Ada", "nobody", "a\x00b", "\ud800"]) == [user]

    @pytest.mark.parametrize("name", ["last_login", "is_staff", "id"])
    def test_look_up_by_uuids_ignores_a_value_that_user_uuid_field_cannot_contain(self, user, field, name):
        field(name)

        assert users.with_uuids(["ada", "", "9" * 5000, "\ud800"]) == []

    def test_look_up_by_uuids_finds_no_user_if_user_uuid_field_names_no_field(self, user, field):
        field("no_such_field")

        assert users.with_uuids(["ada"]) == []


@pytest.mark.django_db
class TestTheIdOfTheCaller:
    def test_is_own_id_accepts_only_the_exact_primary_key_of_the_caller(self):
        caller = User.objects.create_user("ada", pk=5)

        assert users.is_own_id(caller, "5")
        assert [text for text in ("4", "6", "05", "50", "", "uuid:5") if users.is_own_id(caller, text)] == []

    def test_is_own_id_accepts_only_the_exact_uuid_of_the_caller(self, user):
        UserIdentity.objects.create(user=user, uuid=uuid_from("7"))

        assert users.is_own_id(user, f"uuid:{uuid_from('7')}")
        others = [uuid_from("0"), uuid_from("f"), "", "x"]
        assert [text for text in others if users.is_own_id(user, f"uuid:{text}")] == []

    def test_is_own_id_refuses_an_empty_uuid_for_a_caller_without_a_uuid(self, user):
        assert not users.is_own_id(user, "uuid:")


@pytest.mark.django_db
class TestTheTargetOfAMasquerade:
    @pytest.mark.parametrize("primary_key", [1000, 3000])
    def test_target_may_have_a_smaller_or_larger_primary_key_than_the_caller(self, primary_key):
        caller = User.objects.create_user("ada", pk=2000, is_superuser=True)
        target = User.objects.create_user("grace", pk=primary_key)

        assert users.masquerade_target(caller, str(primary_key)) == target

    def test_target_with_the_primary_key_of_the_caller_is_the_caller(self):
        caller = User.objects.create_user("ada", pk=2000)

        assert users.masquerade_target(caller, "2000") is caller

    @pytest.mark.parametrize("answer", [1, "yes", [True], None])
    def test_masquerade_is_refused_if_the_hook_returns_anything_but_true(self, user, answer):
        target = User.objects.create_user("grace")

        with (
            override_settings(INSTACCESS={"MASQUERADE_HOOK": lambda caller, target: answer}),
            pytest.raises(MasqueradeRefused) as refused,
        ):
            users.masquerade_target(user, str(target.pk))

        assert refused.value.code == "as_user_id_not_allowed"


class TestTheSourcesOfPermissions:
    def test_backend_that_grants_no_permissions_is_not_a_source_of_unlisted_permissions(self, settings):
        settings.AUTHENTICATION_BACKENDS = [
            "django.contrib.auth.backends.ModelBackend",
            "oauth2_provider.backends.OAuth2Backend",
        ]

        assert users.sources_of_unlisted_permissions() == []
