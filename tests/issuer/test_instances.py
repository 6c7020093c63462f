"""Instances made the quick way are what Django would make, and where they might not be, Django makes them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init
from oauth2_provider.models import get_access_token_model, get_application_model

from instaccess import instances
from instaccess.models import IssuedToken, UserIdentity


def made(user: Any) -> Any:
    """The row of a user, made into an instance."""
    fields = get_user_model()._meta.concrete_fields
    return instances.make(
        get_user_model(), {field.attname: getattr(user, field.attname) for field in fields}, alias="default"
    )


class TestAnInstance:
    def test_is_equal_to_the_one_that_django_makes_and_can_be_used_as_it_is(self, user):
        found = made(user)

        assert (found, hash(found), found._state.adding) == (user, hash(user), False)
        assert pickle.loads(pickle.dumps(found)) == user
        found.refresh_from_db()
        found.save()

    def test_reads_what_was_left_out_when_it_is_asked_for(self, user, django_assert_num_queries):
        found = instances.make(get_user_model(), {"id": user.pk}, alias="default")

        with django_assert_num_queries(1):
            assert found.username == "ada"

    def test_that_is_new_has_no_row_yet(self):
        assert instances.make(UserIdentity, {"user_id": 1})._state.adding


class TestTheQuickWay:
    @pytest.mark.parametrize(
        "model", [get_user_model(), get_access_token_model(), get_application_model(), IssuedToken, UserIdentity]
    )
    def test_is_open_to_the_models_that_are_made_for_each_token(self, model):
        assert instances.can_make(model)

    @pytest.mark.parametrize("signal", [pre_init, post_init], ids=["pre_init", "post_init"])
    def test_is_closed_while_somebody_waits_for_a_signal(self, signal):
        def listen(**kwargs: Any) -> None:
            """Told of every instance."""

        signal.connect(listen, sender=UserIdentity)
        try:
            assert not instances.can_make(UserIdentity)
        finally:
            signal.disconnect(listen, sender=UserIdentity)

    def test_is_closed_to_a_model_that_takes_part(self):
        class Suspended(models.Model):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.is_active = False

            class Meta:
                app_label = "tests"

        class Renamed(models.Model):
            @classmethod
            def from_db(cls, *args: Any) -> Any:
                return super().from_db(*args)

            class Meta:
                app_label = "tests"

        class Watched(models.Model):
            def __setattr__(self, name: str, value: Any) -> None:
                super().__setattr__(name, value)

            class Meta:
                app_label = "tests"

        assert not any(map(instances.can_make, [Suspended, Renamed, Watched]))

    def test_is_closed_to_a_model_with_a_mixin_behind_those_of_django(self):
        """`Model.__init__` ends with `super().__init__()`: the mixin takes part."""

        class Suspendable:
            def __init__(self) -> None:
                self.is_active = False

        class Person(AbstractBaseUser, Suspendable):
            class Meta:
                app_label = "tests"

        assert Person.__init__ is models.Model.__init__
        assert not instances.can_make(Person)

    def test_is_closed_to_a_field_that_converts_what_it_is_given(self):
        class Converting(DeferredAttribute):
            def __set__(self, instance: Any, value: Any) -> None:
                instance.__dict__[self.field.attname] = value == 1

        class Flag(models.IntegerField):
            descriptor_class = Converting

        class Flagged(models.Model):
            is_active = Flag()

            class Meta:
                app_label = "tests"

        assert not instances.can_make(Flagged)

    def test_is_closed_to_an_attribute_that_was_replaced_later(self):
        class Replaced(models.Model):
            is_active = models.BooleanField()

            class Meta:
                app_label = "tests"

        Replaced.is_active = property(lambda self: False)  # type: ignore[assignment]

        assert not instances.can_make(Replaced)
