"""Tests of `manage.py instaccess_tokens` with deleted users, and of its subcommand `erase-name`."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from instaccess import users
from instaccess.audit import ERASED_NAME
from instaccess.models import IssuedToken

pytestmark = pytest.mark.django_db


def tokens(*args: str) -> str:
    out = io.StringIO()
    call_command("instaccess_tokens", *args, stdout=out)
    return out.getvalue()


def as_json(*args: str) -> Any:
    return json.loads(tokens(*args, "--json"))


def recorded_names() -> set[str]:
    return set(IssuedToken.objects.values_list("user_name", flat=True))


class TestADeletedUser:
    def test_a13_option_user_finds_the_tokens_of_a_deleted_user(self, row, user):
        theirs = row()
        user.delete()

        assert [fact["jti"] for fact in as_json("list", "--user", "ada")] == [str(theirs.jti)]
        assert as_json("revoke", "--user", "ada", "--reason", "left", "--dry-run") == {"would_revoke": 1}
        assert json.loads(tokens("export", "--format", "jsonl", "--user", "ada"))["user_name"] == "ada"

    def test_a13_tokens_list_and_show_print_the_name_of_a_deleted_user(self, row, user):
        theirs = row()
        user.delete()

        assert "user ada  client" in tokens("list")
        fact = as_json("show", "--jti", str(theirs.jti))
        assert (fact["user"], fact["user_name"], fact["user_uuid"]) == ("ada", "ada", theirs.user_uuid)


class TestEraseName:
    @pytest.mark.parametrize("option", ["uuid", "name"])
    def test_erase_name_erases_the_name_of_a_deleted_user(self, row, user, option):
        theirs = row()
        row()
        user.delete()

        text = tokens("erase-name", "--user", {"uuid": theirs.user_uuid, "name": "ada"}[option])

        assert text == (
            f"Erased the name of user {theirs.user_uuid} in 2 rows. Earlier exports, backups and logs still contain "
            "the name.\n"
        )
        assert recorded_names() == {ERASED_NAME}

    def test_erase_name_accepts_a_primary_key_and_warns_that_the_user_still_exists(self, row, user):
        row()

        assert "The user still exists, so rows of new tokens will contain the name again." in tokens(
            "erase-name", "--user", str(user.pk)
        )
        assert recorded_names() == {ERASED_NAME}

    def test_erase_name_does_not_warn_if_new_rows_contain_no_names(self, row, user, settings):
        row()
        settings.INSTACCESS = {"AUDIT_USER_NAMES": False}

        assert "still exists" not in tokens("erase-name", "--user", "ada")

    def test_erase_name_with_the_option_json_prints_the_uuid_and_the_number_of_rows(self, row):
        theirs = row()

        assert as_json("erase-name", "--user", "ada") == {"user_uuid": theirs.user_uuid, "erased": 1}

    def test_erase_name_with_the_option_dry_run_prints_the_number_of_rows_and_changes_no_row(self, row):
        theirs = row()
        row()

        assert as_json("erase-name", "--user", "ada", "--dry-run") == {
            "user_uuid": theirs.user_uuid,
            "would_erase": 2,
        }
        assert tokens("erase-name", "--user", "ada", "--dry-run") == (
            f"The name of user {theirs.user_uuid} would be erased in 2 rows.\n"
        )
        assert recorded_names() == {"ada"}

    def test_erase_name_refuses_a_name_of_several_users_and_prints_their_uuids(self, row, user):
        first = row().user_uuid
        user.delete()
        again = get_user_model().objects.create_user("ada")
        second = row(user=again, user_uuid=users.user_uuid(again)).user_uuid

        with pytest.raises(CommandError, match=r"matches several users\. Give the uuid of one user") as error:
            tokens("erase-name", "--user", "ada")
        assert first in str(error.value)
        assert second in str(error.value)
        assert recorded_names() == {"ada"}

        tokens("erase-name", "--user", first)
        assert set(IssuedToken.objects.values_list("user_uuid", "user_name")) == {
            (first, ERASED_NAME),
            (second, "ada"),
        }

    @pytest.mark.parametrize("user_option", ["nobody", ""])
    def test_erase_name_refuses_an_unknown_user(self, row, user_option):
        row()

        with pytest.raises(CommandError, match="No audit row contains the user"):
            tokens("erase-name", "--user", user_option)
