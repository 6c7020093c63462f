"""`manage.py instaccess_tokens seal | checkpoint | verify | prune`: what an operator types, reads, and gets back."""

from __future__ import annotations

import io
import json
import secrets
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from instaccess.models import Checkpoint, IssuedToken

pytestmark = pytest.mark.django_db

DAY = 86_400


def command(name: str, *args: str) -> str:
    out = io.StringIO()
    call_command(name, *args, stdout=out)
    return out.getvalue()


def tokens(*args: str) -> str:
    return command("instaccess_tokens", *args)


def as_json(*args: str) -> Any:
    return json.loads(tokens(*args, "--json"))


@pytest.fixture
def audit(row, initial_keys):
    """A row that can be sealed, and one that can't yet."""
    return [row(age=3 * DAY), row()]


class TestSeal:
    def test_says_what_it_sealed_and_what_waits(self, audit):
        text = tokens("seal")

        assert text.startswith(f"Checkpoint 1: 1 rows up to {audit[0].pk}, digest ")
        assert "1 rows wait, for they may still change; the first until " in text
        assert tokens("seal").startswith("Nothing to seal.\n")

    def test_as_json(self, audit):
        facts = as_json("seal")

        assert [made["rows"] for made in facts["made"]] == [1]
        assert facts["waiting"] == 1
        assert facts["ready_at"].endswith("Z")

    def test_fails_so_that_cron_writes_when_a_row_was_edited_before(self, audit):
        IssuedToken.objects.filter(pk=audit[0].pk).update(user_agent="nobody")

        with pytest.raises(CommandError, match=r"1 of these rows .* instaccess_tokens verify"):
            tokens("seal")
        assert Checkpoint.objects.count() == 1


class TestCheckpoint:
    def test_prints_the_latest_for_paper(self, audit):
        tokens("seal")

        text = tokens("checkpoint")

        (digest,) = [line for line in text.splitlines() if line.startswith("digest")]
        assert text.startswith("Checkpoint 1 of the InstAccess audit\nrows       1, ids ")
        assert len(digest.split()) == 9
        assert max(map(len, text.splitlines())) <= 88

    def test_goes_to_a_file_that_verify_reads(self, audit, tmp_path):
        tokens("seal")
        path = tmp_path / "checkpoint.json"

        assert f"Checkpoint 1 is in {path}" in tokens("checkpoint", "--number", "1", "--file", str(path))
        assert "All 2 rows are as they were written." in tokens("verify", "--checkpoint", str(path))

    def test_as_json_is_what_verify_reads(self, audit, tmp_path):
        tokens("seal")
        path = tmp_path / "checkpoint.json"
        path.write_text(tokens("checkpoint", "--json"))

        assert as_json("verify", "--checkpoint", str(path))["broken"] == ""

    def test_overwrites_no_older_one(self, audit, tmp_path):
        tokens("seal")
        path = tmp_path / "checkpoint.json"
        path.write_text("an older one")

        with pytest.raises(CommandError, match="is there already"):
            tokens("checkpoint", "--file", str(path))
        assert path.read_text() == "an older one"

    def test_says_what_to_do_when_there_is_none(self, audit):
        with pytest.raises(CommandError, match=r"There is no checkpoint yet: .*instaccess_tokens seal"):
            tokens("checkpoint")
        tokens("seal")
        with pytest.raises(CommandError, match="no checkpoint 7"):
            tokens("checkpoint", "--number", "7")


class TestVerify:
    def test_says_that_all_is_well_and_how_far_it_looked(self, audit):
        tokens("seal")

        text = tokens("verify")

        assert text.startswith(
            "All 2 rows are as they were written.\n1 stand under 1 checkpoints.\nThe last is number 1"
        )

    def test_a6_fails_and_names_the_first_row_that_was_touched(self, audit):
        tokens("seal")
        IssuedToken.objects.filter(pk=audit[0].pk).update(user_agent="nobody")

        with pytest.raises(CommandError, match=f"The audit is not as it was written: row {audit[0].pk} "):
            tokens("verify")
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("instaccess_tokens", "verify", "--json", stdout=out)
        assert json.loads(out.getvalue())["row"] == audit[0].pk

    def test_names_a_file_that_it_cannot_read(self, audit, tmp_path):
        with pytest.raises(CommandError, match=r"missing\.json can't be read: No such file"):
            tokens("verify", "--checkpoint", str(tmp_path / "missing.json"))
        (tmp_path / "other.json").write_bytes(b"\xff")
        with pytest.raises(CommandError, match=r"other\.json can't be read: it is not text"):
            tokens("verify", "--checkpoint", str(tmp_path / "other.json"))
        (tmp_path / "other.json").write_text("{}")
        with pytest.raises(CommandError, match=r"other\.json is no exported checkpoint"):
            tokens("verify", "--checkpoint", str(tmp_path / "other.json"))


class TestPrune:
    @pytest.fixture
    def old(self, row, initial_keys):
        return [row(age=401 * DAY), row(age=399 * DAY)]

    def test_o10_deletes_old_rows_and_says_so(self, old):
        text = tokens("prune", "--older-than", "400d")

        assert text.startswith("1 rows older than 20")
        assert f"Rows up to {old[0].pk} are gone; a signed marker says so." in text
        assert list(IssuedToken.objects.all()) == [old[1]]

    def test_o10_dry_deletes_nothing(self, old):
        assert as_json("prune", "--older-than", "400d", "--dry-run") == {"would_delete": 1}
        assert "2 rows would be deleted." in tokens("prune", "--older-than", "57d", "--dry-run")
        assert IssuedToken.objects.count() == 2

    def test_o10_keeps_live_tokens_and_their_denials_whatever_age_is_given(self, row, initial_keys):
        row(age=3500)
        row(age=3500, revoked_at=timezone.now())

        assert as_json("prune", "--older-than", "1h") == {"deleted": 0, "last": 0}

    def test_takes_the_age_from_the_setting(self, old, settings):
        with pytest.raises(CommandError, match=r"--older-than 400d, or set INSTACCESS\['AUDIT_RETENTION_DAYS'\]"):
            tokens("prune")
        settings.INSTACCESS = {"AUDIT_RETENTION_DAYS": 400}

        assert as_json("prune") == {"deleted": 1, "last": old[0].pk}

    @pytest.mark.parametrize("age", ["", "400", "d", "-1d", "0d", "1.5d", "1y", "1d ", "٣d", "9999999d"])
    def test_takes_an_age_and_nothing_else(self, age):
        with pytest.raises(CommandError, match="--older-than"):
            tokens("prune", f"--older-than={age}")

    def test_takes_batches_of_any_size(self, old):
        assert as_json("prune", "--older-than", "300d", "--batch", "0")["deleted"] == 2

    def test_reaches_back_before_all_times_without_an_error_of_its_own(self, old):
        with pytest.raises(CommandError, match="before the year 1"):
            tokens("prune", "--older-than", "999999w")

    def test_a6_refuses_to_cover_up_and_can_be_forced(self, old):
        tokens("seal")
        IssuedToken.objects.filter(pk=old[0].pk).update(user_agent="nobody")

        with pytest.raises(CommandError, match="nothing was pruned"):
            tokens("prune", "--older-than", "400d")
        assert as_json("prune", "--older-than", "400d", "--force")["deleted"] == 1
        assert "Note: rows that were not as they were written have been pruned" in tokens("verify")


def test_resealing_the_keys_makes_the_hmacs_of_the_audit_anew(audit: Any, settings: Any) -> None:
    tokens("seal")
    new = secrets.token_urlsafe(32)
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new, "SECRET_KEY"]}

    assert "Private keys resealed: 3. HMACs of the audit log recomputed: 2." in command("instaccess_keys", "reseal")

    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new]}
    assert "All 2 rows are as they were written." in tokens("verify")
