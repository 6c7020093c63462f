"""Tests of `manage.py instaccess_tokens seal`, `checkpoint`, `verify`, `review` and `prune`."""

from __future__ import annotations

import io
import json
import re
import secrets
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from instaccess.management.base import operator
from instaccess.models import Checkpoint, IncidentReview, IssuedToken

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


def verify_fails(*args: str) -> tuple[str, str]:
    """Run `verify`, which must fail. Returns the output and the error message."""
    out = io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("instaccess_tokens", "verify", *args, stdout=out)
    return out.getvalue(), str(raised.value)


def codes_of(*args: str) -> list[str]:
    """Run `verify`, which must fail. Returns the codes of the printed problems."""
    return re.findall(r"^Problem ([0-9a-f]{12}): ", verify_fails(*args)[0], re.MULTILINE)


@pytest.fixture
def audit(row, initial_keys):
    """Create one audit row that a checkpoint can cover, and one audit row that can still change."""
    return [row(age=3 * DAY), row()]


class TestTokensSeal:
    def test_seal_prints_the_new_checkpoints_and_the_number_of_remaining_rows(self, audit):
        text = tokens("seal")

        assert text.startswith(f"Checkpoint 1: 1 rows up to row {audit[0].pk}, digest ")
        assert "1 rows can still change; a checkpoint can cover the first of these rows at " in text
        assert tokens("seal").startswith("No rows are ready for a checkpoint.\n")

    def test_seal_with_the_option_json_prints_the_checkpoints_and_the_number_of_remaining_rows(self, audit):
        facts = as_json("seal")

        assert [made["rows"] for made in facts["made"]] == [1]
        assert facts["waiting"] == 1
        assert facts["ready_at"].endswith("Z")

    def test_seal_fails_after_covering_a_modified_row_so_that_cron_sends_mail(self, audit):
        IssuedToken.objects.filter(pk=audit[0].pk).update(user_agent="modified")

        with pytest.raises(CommandError, match=r"1 of these rows .* instaccess_tokens verify"):
            tokens("seal")
        assert Checkpoint.objects.count() == 1


class TestTokensCheckpoint:
    def test_checkpoint_prints_the_latest_checkpoint_in_lines_of_at_most_88_characters(self, audit):
        tokens("seal")

        text = tokens("checkpoint")

        (digest,) = [line for line in text.splitlines() if line.startswith("digest")]
        assert text.startswith("Checkpoint 1 of the InstAccess audit log\nrows       1, ids ")
        assert len(digest.split()) == 9
        assert max(map(len, text.splitlines())) <= 88

    def test_checkpoint_with_the_option_file_writes_a_file_that_verify_accepts(self, audit, tmp_path):
        tokens("seal")
        path = tmp_path / "checkpoint.json"

        assert f"Checkpoint 1 was written to {path}" in tokens("checkpoint", "--number", "1", "--file", str(path))
        assert "No tampering found in 2 rows." in tokens("verify", "--checkpoint", str(path))

    def test_checkpoint_with_the_option_json_prints_a_document_that_verify_accepts(self, audit, tmp_path):
        tokens("seal")
        path = tmp_path / "checkpoint.json"
        path.write_text(tokens("checkpoint", "--json"))

        assert as_json("verify", "--checkpoint", str(path))["problems"] == []

    def test_checkpoint_fails_instead_of_overwriting_a_file(self, audit, tmp_path):
        tokens("seal")
        path = tmp_path / "checkpoint.json"
        path.write_text("an older checkpoint")

        with pytest.raises(CommandError, match="already exists and is not overwritten"):
            tokens("checkpoint", "--file", str(path))
        assert path.read_text() == "an older checkpoint"

    def test_checkpoint_fails_and_names_the_command_seal_if_there_is_no_checkpoint(self, audit):
        with pytest.raises(CommandError, match=r"There is no checkpoint yet\. To create .*instaccess_tokens seal"):
            tokens("checkpoint")
        tokens("seal")
        with pytest.raises(CommandError, match="no checkpoint 7"):
            tokens("checkpoint", "--number", "7")


class TestTokensVerify:
    def test_verify_prints_the_number_of_checked_rows_and_checkpoints(self, audit):
        tokens("seal")

        text = tokens("verify")

        assert text.startswith(
            "No tampering found in 2 rows.\n1 rows are covered by 1 checkpoints.\nThe last checkpoint is number 1"
        )

    def test_a6_verify_fails_and_reports_a_modified_row(self, audit):
        tokens("seal")
        IssuedToken.objects.filter(pk=audit[0].pk).update(user_agent="modified")

        with pytest.raises(CommandError, match=f"The audit log was modified or can't be checked: row {audit[0].pk} "):
            tokens("verify")
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("instaccess_tokens", "verify", "--json", stdout=out)
        [problem] = json.loads(out.getvalue())["problems"]
        assert problem["kind"] == "modified"
        assert problem["first"] == problem["last"] == str(audit[0].pk)

    def test_verify_fails_and_names_a_checkpoint_file_that_is_missing_or_contains_no_checkpoint(
        self, audit, tmp_path
    ):
        with pytest.raises(CommandError, match=r"Can't read .*missing\.json: No such file"):
            tokens("verify", "--checkpoint", str(tmp_path / "missing.json"))
        (tmp_path / "other.json").write_bytes(b"\xff")
        with pytest.raises(CommandError, match=r"Can't read .*other\.json: the file isn't text"):
            tokens("verify", "--checkpoint", str(tmp_path / "other.json"))
        (tmp_path / "other.json").write_text("{}")
        with pytest.raises(CommandError, match=r"other\.json isn't an exported checkpoint"):
            tokens("verify", "--checkpoint", str(tmp_path / "other.json"))

    def test_a12_verify_prints_each_problem_with_its_code_and_counts_problems_over_the_limit(self, row, initial_keys):
        rows = [row() for _ in range(205)]
        for each in rows[::2]:
            IssuedToken.objects.filter(pk=each.pk).update(user_agent="modified")

        text, error = verify_fails()

        lines = [line for line in text.splitlines() if line.startswith("Problem ")]
        assert len(lines) == 100
        assert re.fullmatch(
            rf"Problem [0-9a-f]{{12}}: row {rows[0].pk} \(jti {rows[0].jti}\) was modified, .*\.", lines[0]
        )
        assert "3 more problems are not listed." in text
        assert error.endswith(" (and 102 more problems).")
        facts, _ = verify_fails("--json")
        assert (len(json.loads(facts)["problems"]), json.loads(facts)["more"]) == (100, 3)


class TestTokensReview:
    @pytest.fixture
    def codes(self, audit):
        """Modify the first audit row. Returns the codes of the problems that `verify` prints."""
        IssuedToken.objects.filter(pk=audit[0].pk).update(user_agent="modified")
        return codes_of()

    def test_a12_verify_succeeds_after_a_review_and_prints_the_review(self, codes, audit):
        text = tokens("review", *codes, "--reason", "ticket 4711")

        assert text == "Review 1 records that you reviewed 1 problems.\n"
        output = tokens("verify")
        assert output.startswith("No tampering found in 2 rows, except in reviewed incidents.\n")
        [line] = [line for line in output.splitlines() if line.startswith("Reviewed incident 1: ")]
        assert f"row {audit[0].pk} (jti {audit[0].jti}) was modified" in line
        assert f"1 of 1 problems still exist. Reviewed by {operator()} at 20" in line
        assert line.endswith("Z: ticket 4711")

    def test_a12_review_with_the_option_json_prints_the_reviewed_problems(self, codes, audit):
        facts = as_json("review", *codes, "--reason", "x")

        assert facts["number"] == 1
        assert [(problem["code"], problem["first"]) for problem in facts["problems"]] == [
            (codes[0], str(audit[0].pk))
        ]
        [incident] = as_json("verify")["incidents"]
        assert (incident["reason"], incident["present"], incident["problems"]) == ("x", 1, facts["problems"])

    def test_a12_review_of_one_problem_does_not_review_other_problems(self, row, initial_keys):
        for each in [row() for _ in range(3)][::2]:
            IssuedToken.objects.filter(pk=each.pk).update(user_agent="modified")
        first, second = codes_of()
        tokens("review", first, first, "--reason", "x")

        assert codes_of() == [second]

    def test_a12_review_fails_if_the_row_has_changed_again(self, codes, audit):
        IssuedToken.objects.filter(pk=audit[0].pk).update(user_agent="modified again")

        with pytest.raises(CommandError, match=rf"no problem with the code {codes[0]}\. .* instaccess_tokens verify"):
            tokens("review", *codes, "--reason", "x")
        assert not IncidentReview.objects.exists()

    @pytest.mark.parametrize("reason", [[], ["--reason", ""], ["--reason", " "]])
    def test_a12_review_fails_without_a_reason(self, codes, reason):
        with pytest.raises(CommandError, match="--reason"):
            tokens("review", *codes, *reason)

    def test_a12_review_fails_without_a_code(self, codes):
        with pytest.raises(CommandError, match="code"):
            tokens("review", "--reason", "x")

    def test_a12_review_accepts_a_problem_that_only_an_exported_checkpoint_reveals(self, audit, tmp_path):
        tokens("seal")
        path = tmp_path / "checkpoint.json"
        tokens("checkpoint", "--file", str(path))
        Checkpoint.objects.all().delete()
        [code] = codes_of("--checkpoint", str(path))

        tokens("review", code, "--checkpoint", str(path), "--reason", "x")

        assert "No tampering found" in tokens("verify", "--checkpoint", str(path))


class TestTokensPrune:
    @pytest.fixture
    def old(self, row, initial_keys):
        return [row(age=401 * DAY), row(age=399 * DAY)]

    def test_o10_prune_deletes_old_rows_and_prints_their_number(self, old):
        text = tokens("prune", "--older-than", "400d")

        assert text.startswith("Deleted 1 rows of tokens issued before 20")
        assert f"A signed prune marker records that the rows up to row {old[0].pk} were pruned." in text
        assert list(IssuedToken.objects.all()) == [old[1]]

    def test_o10_prune_with_the_option_dry_run_prints_the_number_and_deletes_no_row(self, old):
        assert as_json("prune", "--older-than", "400d", "--dry-run") == {"would_delete": 1}
        assert "2 rows would be deleted." in tokens("prune", "--older-than", "57d", "--dry-run")
        assert IssuedToken.objects.count() == 2

    def test_o10_prune_keeps_rows_of_live_and_recently_revoked_tokens_even_for_an_age_of_one_hour(
        self, row, initial_keys
    ):
        row(age=3500)
        row(age=3500, revoked_at=timezone.now())

        assert as_json("prune", "--older-than", "1h") == {"deleted": 0, "last": "0"}

    def test_prune_uses_the_setting_audit_retention_days_as_the_default_age(self, old, settings):
        with pytest.raises(
            CommandError, match=r"--older-than 400d, for example, or set INSTACCESS\['AUDIT_RETENTION_DAYS'\]"
        ):
            tokens("prune")
        settings.INSTACCESS = {"AUDIT_RETENTION_DAYS": 400}

        assert as_json("prune") == {"deleted": 1, "last": str(old[0].pk)}

    @pytest.mark.parametrize("age", ["", "400", "d", "-1d", "0d", "1.5d", "1y", "1d ", "٣d", "9999999d"])
    def test_prune_refuses_an_invalid_age(self, age):
        with pytest.raises(CommandError, match="--older-than"):
            tokens("prune", f"--older-than={age}")

    def test_prune_accepts_a_batch_size_of_zero(self, old):
        assert as_json("prune", "--older-than", "300d", "--batch", "0")["deleted"] == 2

    def test_prune_refuses_an_age_that_reaches_back_before_the_year_1(self, old):
        with pytest.raises(CommandError, match="before the year 1"):
            tokens("prune", "--older-than", "999999w")

    def test_a6_prune_command_without_force_refuses_to_delete_modified_rows(self, old):
        tokens("seal")
        IssuedToken.objects.filter(pk=old[0].pk).update(user_agent="modified")

        with pytest.raises(CommandError, match="nothing was pruned"):
            tokens("prune", "--older-than", "400d")
        assert as_json("prune", "--older-than", "400d", "--force")["deleted"] == 1
        assert "Note: modified rows were pruned: row " in tokens("verify")


def test_instaccess_keys_reseal_recomputes_the_hmacs_of_the_audit_log(audit: Any, settings: Any) -> None:
    tokens("seal")
    new = secrets.token_urlsafe(32)
    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new, "SECRET_KEY"]}

    assert "Private keys encrypted again: 3. HMACs of the audit log recomputed: 4." in command(
        "instaccess_keys", "reseal"
    )

    settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [new]}
    assert "No tampering found in 2 rows." in tokens("verify")
