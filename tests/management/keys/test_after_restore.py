"""Tests for `manage.py instaccess_keys after-restore`: confirmation, output and log."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from instaccess.conf import conf
from instaccess.keys import lifecycle
from instaccess.management.base import operator
from instaccess.models import Key, Revocation
from tests.management.keys.helpers import ENC, SIG, error_of, key_of, run, run_json

pytestmark = pytest.mark.django_db


@pytest.fixture
def answer(monkeypatch):
    """Return a function that runs `after-restore` with a typed answer, and returns the output and the question."""

    def answer_(typed: str | None, *args: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", None if typed is None else io.StringIO(typed))
        out, err = io.StringIO(), io.StringIO()
        call_command("instaccess_keys", "after-restore", *args, stdout=out, stderr=err)
        return out.getvalue(), err.getvalue()

    return answer_


@pytest.fixture
def gateway_key(initial_keys, files, pair) -> str:
    """Import the public key of a gateway, and make it the current encryption key."""
    run("import", "--use", "enc", "--file", files["public.pem"])
    kid: str = pair.thumbprint()
    lifecycle.activate(kid, force=True)
    return kid


@pytest.mark.usefixtures("initial_keys")
class TestConfirmation:
    def test_question_of_after_restore_lists_the_changes(self, answer):
        kid = key_of(SIG, "current").kid
        _, question = answer("yes\n")

        assert question.splitlines()[:2] == [
            "This command is for a database that was restored from a backup.",
            "All tokens issued so far will be refused. Clients have to get new tokens.",
        ]
        assert f"The current signing key {kid} will be revoked." in question
        assert "A new current encryption key will be generated." in question
        assert question.splitlines()[-1] == "To continue, type yes: "

    @pytest.mark.parametrize("typed", ["", "\n", "y\n", "no\n", "YES\n", None], ids=repr)
    def test_after_restore_changes_no_key_unless_the_operator_types_yes(self, answer, typed):
        with pytest.raises(CommandError, match="Nothing was changed, because you did not type yes"):
            answer(typed)

        assert not Revocation.objects.exists()
        assert not Key.objects.filter(status="revoked").exists()

    def test_after_restore_with_the_option_yes_asks_no_question(self, answer):
        _, question = answer(None, "--yes")

        assert question == ""
        assert Key.objects.filter(status="revoked").count() == 3


@pytest.mark.usefixtures("initial_keys")
class TestOutput:
    def test_after_restore_prints_its_changes_and_the_remaining_steps(self):
        old = key_of(SIG, "current").kid
        lines = run("after-restore", "--yes").splitlines()

        until = "2026-11-23 12:01:00 UTC"
        assert lines[:3] == [
            f"Within 5 seconds, every gateway refuses all tokens issued until {until}.",
            f"New tokens are also refused if clients get them before {until}. Test the gateway after this time.",
            "Live tokens marked as revoked in the audit log: 0.",
        ]
        assert f"Revoked the signing key {old}." in lines
        assert f"Generated the current signing key {key_of(SIG, 'current').kid}." in lines
        steps = lines[lines.index("What to do now:") + 1 :]
        assert [step[:3] for step in steps] == ["1. ", "2. ", "3. ", "4. ", "5. "]
        assert f"for up to {conf.jwks_max_age} seconds (JWKS_MAX_AGE)" in steps[0]
        assert f"export --kid {key_of(SIG, 'future').kid}`" in steps[1]
        assert f"export --private --kid {key_of(ENC, 'current').kid}" in steps[2]
        assert "OAuth2 access tokens" in steps[3]
        assert "check --database default" in steps[4]

    def test_after_restore_with_the_option_json_prints_the_keys_and_the_time(self):
        facts = run_json("after-restore", "--yes")

        assert facts["refused_until"] == "2026-11-23T12:01:00Z"
        assert [key["status"] for key in facts["revoked"]] == ["revoked"] * 3
        assert len(facts["generated"]) == 3
        assert (facts["tokens"], facts["kept"], facts["encryption_key_missing"]) == (0, [], False)

    def test_log_line_and_revocation_of_after_restore_contain_the_operator_and_the_reason(self, caplog):
        run("after-restore", "--yes", "--reason", "the disk broke")

        [line] = [record.getMessage() for record in caplog.records if "were replaced" in record.getMessage()]
        assert operator() in line
        assert "'the disk broke'" in line
        revocation = Revocation.objects.get(kind="all")
        assert (revocation.revoked_by, revocation.reason) == (operator(), "the disk broke")


class TestAGatewayInItsOwnDeployment:
    def test_k15_question_of_after_restore_names_the_option_that_keeps_the_key_of_the_gateway(
        self, gateway_key, answer
    ):
        with pytest.raises(CommandError):
            answer("no\n")
        _, question = answer("yes\n")

        assert "The issuer will answer 503 until you import and activate a new public key of the gateway" in question
        assert f"run the command again with --keep {gateway_key}" in question

    def test_k15_first_step_that_after_restore_prints_is_to_generate_a_new_key_at_the_gateway(self, gateway_key):
        lines = run("after-restore", "--yes").splitlines()

        assert lines[lines.index("What to do now:") + 1].startswith("1. Generate a new key pair at the gateway")

    def test_k15_key_that_after_restore_keeps_stays_current(self, gateway_key):
        lines = run("after-restore", "--yes", "--keep", gateway_key).splitlines()

        assert f"Kept the current encryption key {gateway_key}." in lines
        assert not any("Generate a new key pair" in line or "--private" in line for line in lines)
        assert key_of(ENC, "current").kid == gateway_key

    def test_after_restore_reads_a_key_id_that_begins_with_a_dash_as_the_value_of_keep(self, initial_keys):
        assert "there is no key '-begins-with-a-dash'" in error_of(
            "after-restore", "--yes", "--keep", "-begins-with-a-dash"
        )


class TestWithoutKeys:
    def test_after_restore_generates_the_initial_keys_if_there_are_no_keys(self, db: Any):
        assert "Generated the current encryption key" in run("after-restore", "--yes")
        assert Key.objects.count() == 3
