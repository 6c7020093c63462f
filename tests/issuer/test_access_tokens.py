"""The fixed statement finds what the toolkit's query would: the same objects, and nothing where there is nothing."""

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

pytestmark = pytest.mark.django_db


def checksum(token: Any) -> str:
    return hashlib.sha256(token.token.encode()).hexdigest()


def by_query(token: Any) -> Any:
    objects = get_access_token_model()._default_manager.select_related("application", "user")
    return objects.get(token_checksum=checksum(token))


class TestWhatIsFound:
    def test_is_what_the_query_finds(self, access_token, user):
        uuid = users.user_uuid(user)

        found, expected = access_tokens.find(checksum(access_token)), by_query(access_token)

        assert (found, found.user, found.application) == (expected, expected.user, expected.application)
        for name in ("pk", "expires", "scope", "resource"):
            assert getattr(found, name) == getattr(expected, name)
        assert (found.application.client_id, found.user.is_active) == (expected.application.client_id, True)
        assert str(found.user.instaccess_identity.uuid) == uuid

    def test_comes_in_one_query_with_all_that_issuing_reads(self, access_token, user, django_assert_num_queries):
        users.user_uuid(user)
        with django_assert_num_queries(1):
            found = access_tokens.find(checksum(access_token))
            assert found.is_valid([])
            assert found.allow_scopes(["read"])
            assert found.allows_audience("https://canvas.example.edu/")
            assert found.application.is_usable(None)
            assert found.application.client_id
            assert found.user.is_active
            assert found.user.get_username() == "ada"
            assert not found.user.is_superuser
            assert users.user_uuid(found.user)

    def test_has_its_other_columns_when_somebody_reads_them(self, access_token):
        found = access_tokens.find(checksum(access_token))

        assert found.application.name == "LTI tool"
        assert found.user.password
        assert found.token == access_token.token

    def test_is_nothing_for_an_unknown_token(self, access_token):
        assert access_tokens.find("0" * 64) is None

    def test_has_no_user_or_application_where_the_token_has_none(self, make_access_token):
        found = access_tokens.find(checksum(make_access_token(user=None, application=None)))

        assert (found.user, found.application) == (None, None)

    def test_has_a_user_without_a_uuid_as_long_as_they_have_none(self, access_token):
        found = access_tokens.find(checksum(access_token))

        with pytest.raises(UserIdentity.DoesNotExist):
            assert found.user.instaccess_identity

    def test_is_the_token_as_it_is_now(self, access_token):
        assert access_tokens.find(checksum(access_token)) is not None
        access_token.delete()

        assert access_tokens.find(checksum(access_token)) is None

    def test_is_restricted_to_its_resources(self, make_access_token):
        found = access_tokens.find(checksum(make_access_token(resource=["https://other.example.edu/"])))

        assert found.resource == ["https://other.example.edu/"]

    def test_comes_with_the_field_that_holds_the_uuid(self, access_token, settings, django_assert_num_queries):
        settings.INSTACCESS = {"USER_UUID_FIELD": "email"}
        get_user_model().objects.update(email="ada@example.edu")
        with django_assert_num_queries(1):
            assert users.user_uuid(access_tokens.find(checksum(access_token)).user) == "ada@example.edu"

    def test_comes_whole_where_a_hook_is_handed_user_and_application(
        self, access_token, settings, django_assert_num_queries
    ):
        settings.INSTACCESS = {"CLAIMS_HOOK": "os.path.join"}
        with django_assert_num_queries(1):
            found = access_tokens.find(checksum(access_token))
            assert (found.application.name, found.user.email) == ("LTI tool", "")


class TestAQueryIsRunInstead:
    def test_where_a_manager_chooses_among_the_tokens(self, access_token, monkeypatch):
        class Choosy(models.Manager):
            def get_queryset(self) -> Any:
                return super().get_queryset().exclude(scope="")

        manager = Choosy()
        manager.model = get_access_token_model()
        # `_default_manager` is worked out from the options.
        monkeypatch.setitem(get_access_token_model()._meta.__dict__, "default_manager", manager)
        access_tokens._statement.cache_clear()

        with pytest.raises(access_tokens.NotFixed):
            access_tokens.find(checksum(access_token))
        access_tokens._statement.cache_clear()

    def test_where_the_querysets_of_its_manager_are_no_plain_ones(self, access_token, monkeypatch):
        class Choosy(models.QuerySet):
            def filter(self, *args: Any, **kwargs: Any) -> Any:
                return super().filter(*args, **kwargs).exclude(scope="")

        manager = models.Manager.from_queryset(Choosy)()
        manager.model = get_access_token_model()
        monkeypatch.setitem(get_access_token_model()._meta.__dict__, "default_manager", manager)
        access_tokens._statement.cache_clear()

        with pytest.raises(access_tokens.NotFixed):
            access_tokens.find(checksum(access_token))
        access_tokens._statement.cache_clear()

    def test_where_a_model_is_spread_over_two_tables(self):
        class Base(models.Model):
            class Meta:
                app_label = "tests"

        class Derived(Base):
            class Meta:
                app_label = "tests"

        arguments = (get_access_token_model(), get_application_model(), Derived)
        assert access_tokens._statement("default", "any", *arguments, None, True) is None


def test_a_token_that_refers_to_another_column_than_the_primary_key_is_joined_by_that_one():
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
