"""Tests of the problems of keys that the key page shows, with their severities and fixes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from instaccess.admin.keys.findings import GRACE, Problem, Severity, bad_setting, find_problems
from instaccess.audit.refusal_counts import RefusalSpike
from instaccess.exceptions import ConfigError, Reason
from instaccess.keys import rotation
from instaccess.keys.health import KeyHealth
from instaccess.models import Key

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
TIMES = rotation.Times(interval=30 * DAY, lead=timedelta(seconds=303), retention=timedelta(seconds=3663))


def key(status: str, *, use: Key.Use = SIG, private: bool = True, **columns: Any) -> Key:
    return Key(
        kid=f"{use}-{status}-{'x' * 40}",
        use=use,
        status=status,
        sealed_private_jwk="sealed" if private else "",
        **{"created_at": NOW - 20 * DAY, **columns},
    )


def current(*, use: Key.Use = SIG, age: timedelta = DAY, private: bool = True) -> Key:
    return key("current", use=use, private=private, created_at=NOW - age, activated_at=NOW - age)


def problems_of(*keys: Key, spikes: list[RefusalSpike] | None = None, **facts: Any) -> dict[str, Problem]:
    totals = {use: sum(key.use == use for key in keys) for use in Key.Use}
    health = KeyHealth(keys=keys, **{"totals": totals, **facts})
    made = find_problems(health, now=NOW, times=TIMES, spikes=spikes or [])
    assert len({problem.code for problem in made}) == len(made)
    return {problem.code: problem for problem in made}


IN_ORDER = (current(), key("future"), current(use=ENC))


class TestAHealthyDeployment:
    def test_find_problems_returns_no_problem_for_a_healthy_deployment(self):
        assert problems_of(*IN_ORDER) == {}

    def test_find_problems_ignores_a_change_that_is_overdue_by_less_than_a_day(self):
        old = current(age=30 * DAY + GRACE - SECOND)
        gone = key("past", retired_at=NOW - TIMES.retention - GRACE + SECOND)

        assert problems_of(old, key("future"), gone, current(use=ENC)) == {}

    def test_find_problems_accepts_an_encryption_key_if_its_private_key_is_stored_elsewhere(self):
        assert problems_of(current(), key("future"), current(use=ENC, private=False)) == {}


class TestAnIdleEncryptionKey:
    def test_find_problems_reports_an_encryption_key_that_never_becomes_current_as_a_note(self):
        waiting = key("future", use=ENC)
        only = problems_of(current(), key("future"), current(use=ENC, private=False), waiting)

        assert list(only) == ["idle_encryption"]
        assert only["idle_encryption"].severity == Severity.NOTE
        assert waiting.kid[:8] in only["idle_encryption"].text
        assert only["idle_encryption"].command == f"python manage.py instaccess_keys revoke --kid {waiting.kid}"


class TestMissingKeys:
    def test_find_problems_returns_one_problem_with_instaccess_init_if_there_are_no_keys(self):
        only = problems_of()

        assert list(only) == ["no_keys"]
        assert only["no_keys"].severity == Severity.ERROR
        assert only["no_keys"].command == "python manage.py instaccess_init"

    def test_k8_problem_of_a_missing_current_signing_key_names_the_command_instaccess_init(self):
        problem = problems_of(key("future"), current(use=ENC))["no_current"]

        assert problem.severity == Severity.ERROR
        assert "no current signing key" in problem.text
        assert problem.command == "python manage.py instaccess_init"

    def test_problem_of_a_missing_first_encryption_key_names_the_command_instaccess_init(self):
        assert problems_of(current(), key("future"))["no_current"].command == "python manage.py instaccess_init"

    def test_problem_of_a_missing_current_encryption_key_suggests_importing_the_gateways_key(self):
        problem = problems_of(current(), key("future"), totals={SIG: 2, ENC: 1})["no_current"]

        assert "no current encryption key" in problem.text
        assert "gateway" in problem.fix
        assert "activate" in problem.command

    def test_problem_of_a_missing_future_signing_key_names_the_command_rotate(self):
        problem = problems_of(current(), current(use=ENC))["no_future_signing"]

        assert problem.severity == Severity.WARNING
        assert problem.command == "python manage.py instaccess_keys rotate"

    def test_find_problems_reports_a_future_signing_key_without_private_key_as_missing(self):
        assert "no_future_signing" in problems_of(current(), key("future", private=False), current(use=ENC))

    def test_find_problems_reports_a_current_signing_key_without_private_key_as_an_error(self):
        problem = problems_of(current(private=False), key("future"), current(use=ENC))["cannot_sign"]

        assert problem.severity == Severity.ERROR
        assert "activate" in problem.command


class TestOverdueChanges:
    @pytest.mark.parametrize(("days", "text"), [(1, "by 1 day."), (9, "by 9 days.")])
    @pytest.mark.parametrize("use", list(Key.Use))
    def test_problem_of_an_overdue_rotation_names_the_number_of_days_and_the_command_rotate(self, use, days, text):
        keys = {SIG: current(), ENC: current(use=ENC)} | {use: current(use=use, age=(30 + days) * DAY)}
        problem = problems_of(*keys.values(), key("future"), key("future", use=ENC))["overdue"]

        assert problem.severity == Severity.WARNING
        assert problem.text.endswith(text)
        assert keys[use].kid[:8] in problem.text
        assert problem.command == f"python manage.py instaccess_keys rotate --use {use.value}"

    def test_problem_of_an_overdue_external_key_asks_for_the_next_public_key(self):
        problem = problems_of(current(), key("future"), current(use=ENC, age=40 * DAY, private=False))["overdue"]

        assert "owner" in problem.fix
        assert "rotate" not in problem.command

    def test_problem_of_an_overdue_external_key_with_an_imported_future_key_names_the_command_rotate(self):
        keys = [current(use=ENC, age=40 * DAY, private=False), key("future", use=ENC, private=False)]

        assert "rotate" in problems_of(current(), key("future"), *keys)["overdue"].command

    def test_k12_find_problems_reports_a_private_key_that_was_not_erased_in_time(self):
        gone = key("past", retired_at=NOW - TIMES.retention - GRACE)
        problem = problems_of(*IN_ORDER, gone)["not_erased"]

        assert gone.kid[:8] in problem.text
        assert problem.command == "python manage.py instaccess_keys rotate"

    def test_k12_find_problems_ignores_a_past_key_with_an_erased_private_key(self):
        assert problems_of(*IN_ORDER, key("past", private=False, retired_at=NOW - 9 * DAY)) == {}


class TestUnusableKeys:
    def test_o6_find_problems_reports_a_missing_key_encryption_key_once_for_all_affected_keys(self):
        keys = IN_ORDER
        problem = problems_of(*keys, undecryptable={key.kid: Reason.KEK_MISSING for key in keys})["kek_missing"]

        assert problem.severity == Severity.ERROR
        assert all(key.kid[:8] in problem.text for key in keys)
        assert "KEY_ENCRYPTION_KEYS" in problem.fix
        assert "SECRET_KEY_FALLBACKS" in problem.fix

    def test_k7_problem_of_a_private_key_that_cannot_be_decrypted_names_the_key(self):
        problem = problems_of(*IN_ORDER, undecryptable={IN_ORDER[1].kid: Reason.SEAL_BROKEN})["seal_broken"]

        assert problem.severity == Severity.ERROR
        assert f"{IN_ORDER[1].kid[:8]} (signing, future)" in problem.text
        assert "backup" in problem.fix

    def test_k17_problem_of_a_modified_row_names_the_key_and_the_command_that_prints_the_fix(self):
        problem = problems_of(*IN_ORDER, altered=(key("past"),))["key_altered"]

        assert problem.severity == Severity.ERROR
        assert "sig-past (signing, past)" in problem.text
        assert problem.command == "python manage.py check --database default"

    def test_k17_problem_of_unreadable_rows_contains_the_ids_of_the_rows(self):
        problem = problems_of(*IN_ORDER, unreadable=(7, 9))["key_altered"]

        assert "ids 7, 9." in problem.text

    def test_k17_find_problems_returns_the_problem_of_a_modified_row_first(self):
        codes = list(problems_of(current(use=ENC), altered=(current(),), totals={"sig": 1, "enc": 1}))

        assert codes == ["key_altered", "no_current"]

    def test_problem_of_many_keys_names_only_five_keys(self):
        many = tuple(Key(kid=f"{n:08}", use=SIG, status="future", created_at=NOW - DAY) for n in range(50))
        problem = problems_of(*IN_ORDER, altered=many, unreadable=tuple(range(50)))["key_altered"]

        assert problem.text.count("(signing, future)") == 5
        assert "ids 0, 1, 2, 3, 4, …" in problem.text

    def test_problem_of_a_revoked_key_with_live_tokens_names_the_command_rotate(self):
        revoked = key("revoked", private=False, revoked_at=NOW - DAY)
        problem = problems_of(*IN_ORDER, revoked, live={revoked.kid: 3, IN_ORDER[0].kid: 7})[
            "revoked_with_live_tokens"
        ]

        assert revoked.kid[:8] in problem.text
        assert problem.command == "python manage.py instaccess_keys rotate"

    def test_find_problems_ignores_a_revoked_key_without_live_tokens(self):
        assert problems_of(*IN_ORDER, key("revoked", private=False, revoked_at=NOW - DAY), live={"other": 1}) == {}


class TestUnsafeSettings:
    def test_find_problems_reports_a_key_encryption_key_derived_from_secret_key_as_a_note(self):
        problem = problems_of(*IN_ORDER, derived=True)["kek_derived"]

        assert problem.severity == Severity.NOTE
        assert "KEY_ENCRYPTION_KEYS" in problem.fix

    def test_find_problems_ignores_a_derived_key_encryption_key_if_there_are_no_keys(self):
        assert list(problems_of(derived=True)) == ["no_keys"]

    def test_find_problems_reports_an_invalid_setting_as_an_error_and_names_the_setting(self):
        problem = bad_setting(ConfigError("INSTACCESS['LEEWAY'] must be an integer", setting="LEEWAY"))

        assert problem.severity == Severity.ERROR
        assert "INSTACCESS['LEEWAY'] must be an integer" in problem.text
        assert problem.command == "python manage.py check"


class TestRefusalSpikes:
    def test_problem_of_a_refusal_spike_names_the_role_the_reason_and_the_usual_number(self):
        problem = problems_of(*IN_ORDER, spikes=[RefusalSpike("gateway", "bad_signature", 412, 2.6)])[
            "unusual_refusals"
        ]

        assert problem.severity == Severity.WARNING
        for text in ("gateway", "412", "“bad_signature”", "about 3"):
            assert text in problem.text

    def test_find_problems_reports_a_refusal_spike_even_if_there_are_no_keys(self):
        assert list(problems_of(spikes=[RefusalSpike("issuer", "no_key", 50, 0)])) == ["no_keys", "unusual_refusals"]


class TestTheOrderOfProblems:
    def test_find_problems_returns_the_most_severe_problems_first(self):
        made = problems_of(
            current(age=40 * DAY),
            key("future"),
            derived=True,
            spikes=[RefusalSpike("gateway", "expired", 90, 1)],
        )

        assert list(made) == ["no_current", "overdue", "unusual_refusals", "kek_derived"]
