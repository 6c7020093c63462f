"""What the page of keys warns of, and that each warning says what to do."""

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


def found(*keys: Key, spikes: list[RefusalSpike] | None = None, **facts: Any) -> dict[str, Problem]:
    totals = {use: sum(key.use == use for key in keys) for use in Key.Use}
    health = KeyHealth(keys=keys, **{"totals": totals, **facts})
    made = find_problems(health, now=NOW, times=TIMES, spikes=spikes or [])
    assert len({finding.code for finding in made}) == len(made)
    return {finding.code: finding for finding in made}


IN_ORDER = (current(), key("future"), current(use=ENC))


class TestADeploymentInOrder:
    def test_is_warned_of_nothing(self):
        assert found(*IN_ORDER) == {}

    def test_may_be_a_day_late_for_cron_comes_daily(self):
        old = current(age=30 * DAY + GRACE - SECOND)
        gone = key("past", retired_at=NOW - TIMES.retention - GRACE + SECOND)

        assert found(old, key("future"), gone, current(use=ENC)) == {}

    def test_need_not_hold_the_gateways_private_key_nor_its_next(self):
        assert found(current(), key("future"), current(use=ENC, private=False)) == {}


class TestAnEncryptionKeyThatWasMadeHereBeforeTheGatewaysCame:
    def test_is_told_of_for_it_would_wait_for_ever(self):
        waiting = key("future", use=ENC)
        only = found(current(), key("future"), current(use=ENC, private=False), waiting)

        assert list(only) == ["idle_encryption"]
        assert only["idle_encryption"].severity == Severity.NOTE
        assert waiting.kid[:8] in only["idle_encryption"].text
        assert only["idle_encryption"].command == f"python manage.py instaccess_keys revoke --kid {waiting.kid}"


class TestWhatIsMissing:
    def test_without_any_key_is_one_finding_that_names_the_command(self):
        only = found()

        assert list(only) == ["no_keys"]
        assert only["no_keys"].severity == Severity.ERROR
        assert only["no_keys"].command == "python manage.py instaccess_init"

    def test_k8_of_the_signing_keys_the_current_one_is_made_by_init(self):
        finding = found(key("future"), current(use=ENC))["no_current"]

        assert finding.severity == Severity.ERROR
        assert "no current signing key" in finding.text
        assert finding.command == "python manage.py instaccess_init"

    def test_of_encryption_keys_that_never_were_the_first_is_made_by_init(self):
        assert found(current(), key("future"))["no_current"].command == "python manage.py instaccess_init"

    def test_of_encryption_keys_that_were_the_next_may_be_the_gateways(self):
        finding = found(current(), key("future"), totals={SIG: 2, ENC: 1})["no_current"]

        assert "no current encryption key" in finding.text
        assert "gateway" in finding.fix
        assert "activate" in finding.command

    def test_a_future_signing_key_is_made_by_rotate(self):
        finding = found(current(), current(use=ENC))["no_future_signing"]

        assert finding.severity == Severity.WARNING
        assert finding.command == "python manage.py instaccess_keys rotate"

    def test_a_future_signing_key_that_cannot_sign_does_not_count(self):
        assert "no_future_signing" in found(current(), key("future", private=False), current(use=ENC))

    def test_the_private_half_of_the_current_signing_key_is_an_error(self):
        finding = found(current(private=False), key("future"), current(use=ENC))["cannot_sign"]

        assert finding.severity == Severity.ERROR
        assert "activate" in finding.command


class TestWhatIsOverdue:
    @pytest.mark.parametrize(("days", "said"), [(1, "by 1 day."), (9, "by 9 days.")])
    @pytest.mark.parametrize("use", list(Key.Use))
    def test_is_said_with_the_days_and_the_command(self, use, days, said):
        keys = {SIG: current(), ENC: current(use=ENC)} | {use: current(use=use, age=(30 + days) * DAY)}
        finding = found(*keys.values(), key("future"), key("future", use=ENC))["overdue"]

        assert finding.severity == Severity.WARNING
        assert finding.text.endswith(said)
        assert keys[use].kid[:8] in finding.text
        assert finding.command == f"python manage.py instaccess_keys rotate --use {use.value}"

    def test_of_a_gateways_key_is_up_to_its_owner(self):
        finding = found(current(), key("future"), current(use=ENC, age=40 * DAY, private=False))["overdue"]

        assert "owner" in finding.fix
        assert "rotate" not in finding.command

    def test_of_a_gateways_key_whose_next_is_here_is_a_rotation(self):
        keys = [current(use=ENC, age=40 * DAY, private=False), key("future", use=ENC, private=False)]

        assert "rotate" in found(current(), key("future"), *keys)["overdue"].command

    def test_k12_a_private_half_that_should_be_erased_is_named(self):
        gone = key("past", retired_at=NOW - TIMES.retention - GRACE)
        finding = found(*IN_ORDER, gone)["not_erased"]

        assert gone.kid[:8] in finding.text
        assert finding.command == "python manage.py instaccess_keys rotate"

    def test_k12_one_that_was_erased_is_not(self):
        assert found(*IN_ORDER, key("past", private=False, retired_at=NOW - 9 * DAY)) == {}


class TestWhatIsBroken:
    def test_o6_a_lost_key_encryption_key_is_one_error_for_all_that_it_sealed(self):
        keys = IN_ORDER
        finding = found(*keys, shut={key.kid: Reason.KEK_MISSING for key in keys})["kek_missing"]

        assert finding.severity == Severity.ERROR
        assert all(key.kid[:8] in finding.text for key in keys)
        assert "KEY_ENCRYPTION_KEYS" in finding.fix
        assert "SECRET_KEY_FALLBACKS" in finding.fix

    def test_k7_a_row_that_was_altered_is_an_error_that_names_it(self):
        finding = found(*IN_ORDER, shut={IN_ORDER[1].kid: Reason.SEAL_BROKEN})["seal_broken"]

        assert finding.severity == Severity.ERROR
        assert f"{IN_ORDER[1].kid[:8]} (signing, future)" in finding.text
        assert "backup" in finding.fix

    def test_a_public_half_that_was_altered_is_an_error_that_names_it(self):
        finding = found(*IN_ORDER, altered=frozenset({IN_ORDER[2].kid}))["public_altered"]

        assert finding.severity == Severity.ERROR
        assert f"{IN_ORDER[2].kid[:8]} (encryption, current)" in finding.text

    def test_of_many_a_few_are_named(self):
        many = [Key(kid=f"{n:08}", use=SIG, status="future", created_at=NOW - DAY) for n in range(50)]
        finding = found(*IN_ORDER, *many, altered=frozenset(key.kid for key in many))["public_altered"]

        assert finding.text.count("(signing, future)") == 5
        assert "…" in finding.text

    def test_a_revoked_key_with_live_tokens_is_put_right_by_rotate(self):
        revoked = key("revoked", private=False, revoked_at=NOW - DAY)
        finding = found(*IN_ORDER, revoked, live={revoked.kid: 3, IN_ORDER[0].kid: 7})["revoked_with_live_tokens"]

        assert revoked.kid[:8] in finding.text
        assert finding.command == "python manage.py instaccess_keys rotate"

    def test_a_revoked_key_without_is_in_order(self):
        assert found(*IN_ORDER, key("revoked", private=False, revoked_at=NOW - DAY), live={"other": 1}) == {}


class TestWhatIsUnsafe:
    def test_keys_sealed_under_secret_key_are_a_note(self):
        finding = found(*IN_ORDER, derived=True)["kek_derived"]

        assert finding.severity == Severity.NOTE
        assert "KEY_ENCRYPTION_KEYS" in finding.fix

    def test_is_nothing_while_there_is_no_key_to_seal(self):
        assert list(found(derived=True)) == ["no_keys"]

    def test_a_bad_setting_is_an_error_in_its_own_words(self):
        finding = bad_setting(ConfigError("INSTACCESS['LEEWAY'] must be an integer", setting="LEEWAY"))

        assert finding.severity == Severity.ERROR
        assert "INSTACCESS['LEEWAY'] must be an integer" in finding.text
        assert finding.command == "python manage.py check"


class TestUnusualRefusals:
    def test_are_said_with_the_role_the_reason_and_what_is_usual(self):
        finding = found(*IN_ORDER, spikes=[RefusalSpike("gateway", "bad_signature", 412, 2.6)])["unusual_refusals"]

        assert finding.severity == Severity.WARNING
        for said in ("gateway", "412", "“bad_signature”", "about 3"):
            assert said in finding.text

    def test_are_said_where_there_are_no_keys_too(self):
        assert list(found(spikes=[RefusalSpike("issuer", "no_key", 50, 0)])) == ["no_keys", "unusual_refusals"]


class TestTheOrder:
    def test_is_the_worst_first(self):
        made = found(
            current(age=40 * DAY),
            key("future"),
            derived=True,
            spikes=[RefusalSpike("gateway", "expired", 90, 1)],
        )

        assert list(made) == ["no_current", "overdue", "unusual_refusals", "kek_derived"]
