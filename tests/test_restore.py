"""Tests of case K15: an operator restores an old dump of the database, with the tools of the database."""

from __future__ import annotations

import io
import logging
import re
import shlex
import sys
import textwrap
import time
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from instaccess import audit, keys, trust
from instaccess.gateway import views as gateway_views
from instaccess.issuer import issuing
from instaccess.models import IssuedToken
from tests.support import dumps, readme
from tests.support.stored_keys import CURRENT, SIG, current_kid, kids
from tests.support.verifying import URL

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "s" * 43
ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu")


def run(*command: str) -> str:
    out = io.StringIO()
    call_command(*command, stdout=out)
    return out.getvalue()


def check() -> str:
    """Return the problems that `check --database default` prints."""
    err = io.StringIO()
    call_command("check", "--database", "default", stdout=io.StringIO(), stderr=err)
    return err.getvalue()


def status(token: str) -> int:
    return int(Client().get(URL, headers={"Authorization": f"Bearer {token}"}).status_code)


@pytest.fixture(autouse=True)
def deployment(settings, tmp_path, empty_gateway_caches):
    """Read keys and deny lists for every request, and use a cache that all processes share."""
    settings.INSTACCESS = {"DENY_LIST_SECONDS": 0, "KEY_CACHE_SECONDS": 0, "SERVICE_SECRETS": [SECRET]}
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path / "cache")}}


@pytest.fixture
def issue(user):
    """Return a function that issues a token and returns its audit row and the encrypted token."""
    return lambda: issuing.issue(user=user, origin=ORIGIN, now=time.time())


class Story:
    """A dump, and the later changes: tokens were issued and revoked, and a key was revoked and replaced.

    Attributes:
        tokens: the tokens that must be refused after the restore.
        revoked: the kid of the key that was revoked after the dump.
        replaced: the kid of the key that became current after the revocation of the key.
    """

    def __init__(self, tmp_path: Any, issue: Any) -> None:
        self.path = tmp_path / "dump"
        self.tokens = {}
        revoked_later, self.tokens["revoked after the dump"] = issue()
        _, self.tokens["of the key that was revoked after the dump"] = issue()
        dumps.dump(self.path)
        self.revoked = current_kid(SIG)
        run("instaccess_tokens", "revoke", "--jti", str(revoked_later.jti), "--reason", "laptop lost")
        run("instaccess_keys", "revoke", "--kid", self.revoked, "--reason", "stolen")
        self.replaced = current_kid(SIG)
        issued_later, self.tokens["issued and revoked after the dump"] = issue()
        run("instaccess_tokens", "revoke", "--jti", str(issued_later.jti), "--reason", "laptop lost")
        _, self.tokens["issued after the dump"] = issue()
        # The deny list of the running gateway contains the revocations, so only the token that was not revoked is
        # accepted.
        assert [status(token) for token in self.tokens.values()] == [401, 401, 401, 204]
        # Simulate the check of a cron job or of the monitoring, which stores the progress of the database.
        assert "W030" not in check()

    def restore(self) -> None:
        dumps.restore(self.path)


@pytest.fixture
def story(tmp_path, issue):
    return Story(tmp_path, issue)


@pytest.fixture
def restored(story):
    story.restore()
    return story


class TestARunningGateway:
    def test_k15_running_gateway_keeps_refusing_revoked_tokens_after_a_restore_and_logs_the_loss(
        self, restored, caplog
    ):
        refused = [text for name, text in restored.tokens.items() if name != "issued after the dump"]

        with caplog.at_level(logging.ERROR, logger="instaccess.revocation"):
            assert [status(token) for token in refused] == [401, 401, 401]

        lines = [record.getMessage() for record in caplog.records if record.name == "instaccess.revocation"]
        assert len(lines) == 1
        assert "the issuer's database no longer contains revocations that this process has read" in lines[0]
        assert "run `python manage.py instaccess_keys after-restore`" in lines[0]

    def test_k15_issuer_reports_after_a_restore_that_revocations_that_a_gateway_read_were_lost(
        self, story, client, caplog
    ):
        url, headers = reverse("instaccess-revocations"), {"Authorization": f"Bearer {SECRET}"}
        before = client.get(url, {"since": ""}, headers=headers).json()
        story.restore()

        after = client.get(url, {"since": before["cursor"]}, headers=headers).json()

        assert (before["position_lost"], after["position_lost"]) == (False, True)
        assert "a gateway has read revocations that this database doesn't contain" in caplog.text
        again = client.get(url, {"since": after["cursor"]}, headers=headers).json()
        assert again["position_lost"] is False


class TestDetection:
    def test_k15_check_warns_after_a_restore_that_the_database_has_lost_rows(self, restored):
        printed = check()

        assert "(instaccess.W030) The database has lost rows" in printed
        assert "recorded revocations are missing; the last key changes are missing" in printed
        assert "instaccess_keys after-restore" in printed

    def test_k15_verify_fails_after_a_restore_because_the_database_has_lost_rows(self, restored):
        with pytest.raises(CommandError, match=r"The database has lost rows: .*after-restore"):
            run("instaccess_tokens", "verify")

    def test_k15_verify_reports_that_an_exported_checkpoint_is_newer_than_the_restored_database(
        self, issue, row, tmp_path
    ):
        row(age=86_400)
        dumps.dump(tmp_path / "dump")
        run("instaccess_tokens", "seal")
        run("instaccess_tokens", "checkpoint", "--file", str(tmp_path / "copy"))
        dumps.restore(tmp_path / "dump")

        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("instaccess_tokens", "verify", "--checkpoint", str(tmp_path / "copy"), stdout=out)

        assert "Note: the database is older than the exported checkpoint 1 of" in out.getvalue()
        assert "instaccess_keys after-restore" in out.getvalue()

    def test_k15_verify_reports_that_the_restored_database_lacks_the_key_of_a_checkpoint(self, row, tmp_path):
        dumps.dump(tmp_path / "dump")
        keys.revoke(current_kid(SIG))
        # The restored database lacks the new current key, because the key was generated after the dump.
        keys.rotate(SIG, force=True)
        row(age=86_400)
        run("instaccess_tokens", "seal")
        run("instaccess_tokens", "checkpoint", "--file", str(tmp_path / "copy"))
        dumps.restore(tmp_path / "dump")

        with pytest.raises(CommandError, match=r"doesn't contain its signing key.*after-restore"):
            run("instaccess_tokens", "verify", "--checkpoint", str(tmp_path / "copy"))


class TestTheDocumentedSteps:
    """Tests of the steps in docs/restore.md, and of the commands that the steps contain."""

    STEPS = readme.section("Steps", readme.page("restore.md"))

    def commands(self) -> list[str]:
        """Return the commands of the steps. The steps are indented, because they are items of a list."""
        return re.findall(r"^ *python manage\.py (.+)$", self.STEPS, re.MULTILINE)

    def test_k15_documented_steps_after_a_restore_lead_to_a_working_deployment(
        self, tmp_path, issue, row, make_access_token, post, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        row(age=86_400)
        run("instaccess_tokens", "seal")
        run("instaccess_tokens", "checkpoint", "--file", "checkpoint.json")
        access_token = make_access_token()
        story = Story(tmp_path, issue)
        story.restore()
        monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
        ran = []

        for command in self.commands():
            ran.append(command.split(" --")[0])
            run(*shlex.split(command))
        [code] = re.findall(r"```python\n(.*?)```", self.STEPS, re.DOTALL)
        exec(textwrap.dedent(code), {})

        assert ran == [
            "migrate",
            "instaccess_keys after-restore",
            "instaccess_tokens verify",
            "check",
            "instaccess_tokens verify",
        ]
        assert post(access_token).status_code == 401
        gateway_views.clear_caches()
        assert {status(token) for token in story.tokens.values()} == {401}

    def test_k15_verify_names_lost_rows_of_an_exported_checkpoint_until_a_review_records_the_loss(
        self, tmp_path, row, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        dumps.dump(tmp_path / "dump")
        row(age=86_400)
        run("instaccess_tokens", "seal")
        run("instaccess_tokens", "checkpoint", "--file", "checkpoint.json")
        dumps.restore(tmp_path / "dump")
        run("instaccess_keys", "after-restore", "--yes")
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("instaccess_tokens", "verify", "--checkpoint", "checkpoint.json", stdout=out)
        codes = re.findall(r"^Problem ([0-9a-f]{12}): ", out.getvalue(), re.MULTILINE)

        run("instaccess_tokens", "review", *codes, "--reason", "restored", "--checkpoint", "checkpoint.json")

        assert "No tampering found" in run("instaccess_tokens", "verify", "--checkpoint", "checkpoint.json")


class TestTheCommand:
    def test_k15_restarted_gateway_accepts_revoked_tokens_until_the_after_restore_command_has_run(self, restored):
        gateway_views.clear_caches()

        assert kids(SIG, CURRENT) == [restored.revoked]
        assert status(restored.tokens["revoked after the dump"]) == 204

    def test_k15_restarted_gateway_refuses_all_tokens_when_the_after_restore_command_has_run(self, restored):
        run("instaccess_keys", "after-restore", "--yes")
        gateway_views.clear_caches()

        assert {name: status(token) for name, token in restored.tokens.items()} == dict.fromkeys(restored.tokens, 401)

    def test_k15_revocation_list_covers_all_keys_and_tokens_when_the_after_restore_command_has_run(self, restored):
        before = int(time.time())
        run("instaccess_keys", "after-restore", "--yes")

        page = trust.read_revocations()
        assert restored.revoked in page.keys
        assert before + 60 <= page.all_until <= int(time.time()) + 60

    def test_k15_jwks_contains_only_new_keys_when_the_after_restore_command_has_run(self, restored, client):
        run("instaccess_keys", "after-restore", "--yes")

        published = {key["kid"] for key in client.get(reverse("instaccess-jwks")).json()["keys"]}
        assert len(published) == 2
        assert not published & {restored.revoked, restored.replaced}

    def test_k15_gateway_accepts_new_tokens_a_minute_after_the_run_of_the_after_restore_command(
        self, restored, issue
    ):
        run("instaccess_keys", "after-restore", "--yes")
        gateway_views.clear_caches()
        assert status(issue()[1]) == 401

        with time_machine.travel(timezone.now() + timedelta(seconds=61)):
            assert status(issue()[1]) == 204

    def test_k15_after_restore_command_marks_live_tokens_as_revoked_and_stops_the_warning(self, restored):
        run("instaccess_keys", "after-restore", "--yes")

        assert not IssuedToken.objects.filter(revoked_at=None).exists()
        assert audit.verify(keys.evidence_keys()).summary == ""
        assert "W030" not in check()
        assert "No tampering found" in run("instaccess_tokens", "verify")
