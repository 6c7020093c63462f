"""Tests of the fixed SQL statement for access tokens, which must return the same objects as Django's query."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import models
from oauth2_provider.models import get_access_token_model, get_application_model

from instaccess import users
from instaccess.issuer import access_tokens
from instaccess.models import UserIdentity
from tests.support import subproject

pytestmark = pytest.mark.django_db


@pytest.fixture
def statements() -> str:
    """Override the fixture that runs each test twice, because these tests examine only the fixed statement."""
    return "fixed_sql"


def checksum(token: Any) -> str:
    return hashlib.sha256(token.token.encode()).hexdigest()


def by_query(token: Any) -> Any:
    objects = get_access_token_model()._default_manager.select_related("application", "user")
    return objects.get(token_checksum=checksum(token))


class TestTheAccessTokenThatFindReturns:
    def test_find_returns_the_same_access_token_as_the_orm_query(self, access_token, user):
        uuid = users.user_uuid(user)

        loaded, expected = access_tokens.find(checksum(access_token)), by_query(access_token)

        assert (loaded, loaded.user, loaded.application) == (expected, expected.user, expected.application)
        for name in ("pk", "expires", "scope", "resource"):
            assert getattr(loaded, name) == getattr(expected, name)
        assert (loaded.application.client_id, loaded.user.is_active) == (expected.application.client_id, True)
        assert str(loaded.user.instaccess_identity.uuid) == uuid

    def test_find_loads_all_values_that_issuing_reads_in_one_query(
        self, access_token, user, django_assert_num_queries
    ):
        users.user_uuid(user)
        with django_assert_num_queries(1):
            loaded = access_tokens.find(checksum(access_token))
            assert loaded.is_valid([])
            assert loaded.allow_scopes(["read"])
            assert loaded.allows_audience("https://canvas.example.edu/")
            assert loaded.application.is_usable(None)
            assert loaded.application.client_id
            assert loaded.user.is_active
            assert loaded.user.get_username() == "ada"
            assert not loaded.user.is_superuser
            assert not loaded.user.is_staff
            assert users.user_uuid(loaded.user)

    def test_columns_that_issuing_does_not_read_are_loaded_on_access(self, access_token):
        loaded = access_tokens.find(checksum(access_token))

        assert loaded.application.name == "LTI tool"
        assert loaded.user.password
        assert loaded.token == access_token.token

    def test_find_loads_only_the_columns_that_issuing_reads(self, access_token):
        loaded = access_tokens.find(checksum(access_token))

        assert {"token", "created"} <= loaded.get_deferred_fields()
        assert {"client_secret", "name"} <= loaded.application.get_deferred_fields()
        assert {"password", "email"} <= loaded.user.get_deferred_fields()

    def test_find_returns_none_for_an_unknown_access_token(self, access_token):
        assert access_tokens.find("0" * 64) is None

    def test_find_returns_no_user_and_no_application_if_the_access_token_has_neither(self, make_access_token):
        loaded = access_tokens.find(checksum(make_access_token(user=None, application=None)))

        assert (loaded.user, loaded.application) == (None, None)

    def test_find_returns_the_access_token_of_a_user_without_an_identity(self, access_token):
        loaded = access_tokens.find(checksum(access_token))

        with pytest.raises(UserIdentity.DoesNotExist):
            assert loaded.user.instaccess_identity

    def test_find_returns_none_after_the_access_token_was_deleted(self, access_token):
        assert access_tokens.find(checksum(access_token)) is not None
        access_token.delete()

        assert access_tokens.find(checksum(access_token)) is None

    def test_find_returns_the_resource_restriction_of_the_access_token(self, make_access_token):
        loaded = access_tokens.find(checksum(make_access_token(resource=["https://other.example.edu/"])))

        assert loaded.resource == ["https://other.example.edu/"]

    def test_find_loads_the_configured_uuid_field_of_the_user_in_the_same_query(
        self, access_token, settings, django_assert_num_queries
    ):
        settings.INSTACCESS = {"USER_UUID_FIELD": "email"}
        get_user_model().objects.update(email="ada@example.edu")
        with django_assert_num_queries(1):
            assert users.user_uuid(access_tokens.find(checksum(access_token)).user) == "ada@example.edu"

    @pytest.mark.parametrize("hook", ["CLAIMS_HOOK", "MASQUERADE_HOOK"])
    def test_find_loads_all_columns_if_a_hook_is_configured(
        self, access_token, settings, django_assert_num_queries, hook
    ):
        settings.INSTACCESS = {hook: "os.path.join"}
        with django_assert_num_queries(1):
            loaded = access_tokens.find(checksum(access_token))
            assert (loaded.application.name, loaded.user.email) == ("LTI tool", "")
            assert loaded.token == access_token.token


class TestModelsThatNeedTheOrmQuery:
    def test_orm_query_is_used_for_an_access_token_model_with_a_custom_manager(self, access_token, monkeypatch):
        class FilteringManager(models.Manager):
            def get_queryset(self) -> Any:
                return super().get_queryset().exclude(scope="")

        manager = FilteringManager()
        manager.model = get_access_token_model()
        # Replace the manager in the options of the model, because Django derives `_default_manager` from the options.
        monkeypatch.setitem(get_access_token_model()._meta.__dict__, "default_manager", manager)
        access_tokens._statement.cache_clear()

        with pytest.raises(access_tokens.NotFixed):
            access_tokens.find(checksum(access_token))
        access_tokens._statement.cache_clear()

    def test_orm_query_is_used_for_an_access_token_model_with_a_custom_queryset(self, access_token, monkeypatch):
        class FilteringQuerySet(models.QuerySet):
            def filter(self, *args: Any, **kwargs: Any) -> Any:
                return super().filter(*args, **kwargs).exclude(scope="")

        manager = models.Manager.from_queryset(FilteringQuerySet)()
        manager.model = get_access_token_model()
        monkeypatch.setitem(get_access_token_model()._meta.__dict__, "default_manager", manager)
        access_tokens._statement.cache_clear()

        with pytest.raises(access_tokens.NotFixed):
            access_tokens.find(checksum(access_token))
        access_tokens._statement.cache_clear()

    def test_orm_query_is_used_for_a_user_model_with_two_tables(self):
        class Base(models.Model):
            class Meta:
                app_label = "tests"

        class Derived(Base):
            class Meta:
                app_label = "tests"

        arguments = (get_access_token_model(), get_application_model(), Derived)
        assert access_tokens._statement("default", "any", *arguments, None, True) is None


def test_fixed_statement_joins_the_user_on_the_column_that_the_foreign_key_refers_to():
    class Teacher(models.Model):
        number = models.IntegerField(unique=True)
        username = models.CharField(max_length=9)
        USERNAME_FIELD = "username"

        class Meta:
            app_label = "tests"

    class TeachersToken(models.Model):
        token_checksum = models.CharField(max_length=64, unique=True)
        user = models.ForeignKey(Teacher, models.CASCADE, to_field="number")
        application = models.ForeignKey(get_application_model(), models.CASCADE, related_name="+")

        class Meta:
            app_label = "tests"

    arguments = (TeachersToken, get_application_model(), Teacher)
    statement = access_tokens._statement("default", "any", *arguments, None, True)

    assert statement is not None
    assert "u.number = t.user_id" in statement.sql.replace('"', "").replace("`", "")


def test_fixed_statement_reads_the_primary_key_of_a_user_first_even_if_the_key_is_the_last_column():
    class Pupil(models.Model):
        username = models.CharField(max_length=9)
        number = models.IntegerField(primary_key=True)
        USERNAME_FIELD = "username"

        class Meta:
            app_label = "tests"

    class PupilsToken(models.Model):
        note = models.CharField(max_length=9)
        token_checksum = models.CharField(max_length=64, unique=True)
        user = models.ForeignKey(Pupil, models.CASCADE)
        application = models.ForeignKey(get_application_model(), models.CASCADE, related_name="+")

        class Meta:
            app_label = "tests"

    arguments = (PupilsToken, get_application_model(), Pupil)
    statement = access_tokens._statement("default", "any", *arguments, None, True)

    assert statement is not None
    assert statement.user.names == ("number", "username")
    # The statement must load all columns of the project's token model, because methods of the model may read any
    # column.
    assert statement.token.names == ("id", "note", "token_checksum", "user_id", "application_id")


@pytest.fixture(scope="module")
def behind_a_replica(tmp_path_factory: pytest.TempPathFactory, _rsa_pool: Any) -> Any:
    _rsa_pool.rewind()
    return subproject.run(
        "tests.projects.keyring_projects.issuer_replica",
        settings="tests.projects.keyring_projects.settings",
        folder=tmp_path_factory.mktemp("replica"),
        rsa_pool=_rsa_pool,
    )


@pytest.mark.own_database
class TestAReplicaThatLags:
    def test_lagging_replica_contains_six_outdated_access_tokens(self, behind_a_replica):
        assert behind_a_replica["tokens on the replica"] == 6

    def test_p26_service_looks_up_applications_in_the_primary_database(self, behind_a_replica):
        assert behind_a_replica["usable applications"] == ["kept"]

    @pytest.mark.parametrize("way", ["statement", "query"])
    def test_p26_issuer_reads_the_primary_database_instead_of_the_lagging_replica(self, behind_a_replica, way):
        invalid, invalid_as_user_id = "Invalid access token.", "Invalid as_user_id"

        assert behind_a_replica[way] == {
            "good": "issued",
            "new": "issued",
            "revoked": invalid,
            "leaver's": invalid,
            "deleted application's": invalid,
            "service user's": invalid,
            "expired": "Expired access token.",
            "as a deactivated user": invalid_as_user_id,
            "as the uuid of a deactivated user": invalid_as_user_id,
        }
