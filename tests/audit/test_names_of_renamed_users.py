"""Tests of the search for the names of users who were renamed after a token was issued."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model

from instaccess import users
from instaccess.audit import names

pytestmark = pytest.mark.django_db


class TestFindUuidsOfARenamedUser:
    @pytest.fixture(autouse=True)
    def renamed(self, row, user):
        """Rename ada to lovelace after both ada and grace got a token."""
        grace = get_user_model().objects.create_user("grace")
        row()
        row(user=grace, user_uuid=users.user_uuid(grace))
        user.username = "lovelace"
        user.save()

    @pytest.mark.parametrize("name", ["ada", "lovelace"])
    def test_find_uuids_finds_a_renamed_user_by_the_old_and_the_new_name(self, user, name):
        assert names.find_uuids(name) == {users.user_uuid(user)}
