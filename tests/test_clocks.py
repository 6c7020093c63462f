"""Tests of case K16: a host whose clock is wrong by hours. The app uses the clock of the database instead."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.core.checks import run_checks
from django.db import OperationalError, connection

from instaccess import audit, database_clock, keys, trust
from instaccess.audit import refusal_counts
from instaccess.conf import conf
from instaccess.exceptions import KeyRefused
from instaccess.gateway import views as gateway_views
from instaccess.issuer import issuing
from instaccess.keys import checks, ring
from instaccess.models import IssuedToken, Key, RefusalCount
from tests.support.stored_keys import write
from tests.support.verifying import status

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("real_database_clock", "initial_keys")]

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
HOURS = (-30, -2, 2, 30)
DAY = timedelta(days=1)


def host_clock(hours):
    """Return a context manager that moves the clock of this process by some hours, but not the database's clock."""
    return time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True)


def now():
    return database_clock.now("default")


@pytest.fixture(params=HOURS, ids=lambda hours: f"{hours:+}h")
def wrong_host(request):
    """Move the clock of this host by the number of hours in the parameter. Yields this number."""
    ring.clear_cache()
    with host_clock(request.param):
        yield request.param
    ring.clear_cache()


class TestTheClockOfTheDatabase:
    def test_clock_of_the_database_shows_the_time_of_this_host_if_both_clocks_are_right(self):
        before = datetime.now(UTC)
        measured = now()
        after = datetime.now(UTC)

        # SQLite returns milliseconds, and the clock of a server on another host may differ by more.
        assert before - timedelta(seconds=2) <= measured <= after + timedelta(seconds=2)
        assert measured.tzinfo is UTC

    def test_clock_of_the_database_advances_within_a_transaction(self):
        times = [now()]
        while len(times) < 3:
            if (read := now()) != times[-1]:
                times.append(read)

        assert times == sorted(times)

    def test_clock_of_the_database_does_not_depend_on_the_clock_of_this_host(self):
        before = now()
        with host_clock(30):
            assert now() - before < timedelta(hours=1)


class TestACronHostWithAWrongClock:
    @pytest.fixture
    def retired(self):
        """Retire the first keys now. Their tokens stay valid for an hour."""
        return [keys.rotate(use, force=True).retired for use in (SIG, ENC)]

    def test_k16_rotate_with_a_wrong_host_clock_erases_no_private_key_of_a_live_token(self, retired, wrong_host):
        for use in (SIG, ENC):
            assert keys.rotate(use).erased == ()

        assert all(Key.objects.get(pk=key.pk).has_private for key in retired)

    def test_k16_future_key_does_not_become_current_early_if_the_host_clock_is_wrong(self, wrong_host):
        assert keys.rotate(SIG).activated is None
        future = Key.objects.get(use=SIG, status=Key.Status.FUTURE)
        with pytest.raises(KeyRefused, match="can't be activated before"):
            keys.activate(future.kid)

    def test_k16_rotate_with_a_wrong_host_clock_rotates_and_erases_keys_that_are_due(self, retired, wrong_host):
        past = now() - 400 * DAY
        write(Key.objects.filter(status=Key.Status.CURRENT), created_at=past, activated_at=past)
        write(Key.objects.filter(status=Key.Status.FUTURE), created_at=past)
        write(Key.objects.filter(status=Key.Status.PAST), retired_at=past)

        rotation = keys.rotate(SIG)

        assert [key.pk for key in rotation.erased] == [retired[0].pk]
        assert rotation.activated is not None
        # The new times must come from the database. If the times came from the wrong clock, hosts with a correct
        # clock would rotate and erase these keys too early or too late.
        current = Key.objects.get(use=SIG, status=Key.Status.CURRENT)
        assert abs(current.activated_at - now()) < timedelta(minutes=10)
        assert abs(rotation.generated.created_at - now()) < timedelta(minutes=10)

    def test_k16_revocation_with_a_wrong_host_clock_covers_live_tokens_at_the_time_of_the_database(
        self, row, wrong_host
    ):
        token = row(issued_at=now(), expires_at=now() + timedelta(hours=1))

        assert audit.revoke(audit.revocable_tokens(), keks=conf.key_encryption_keys, reason="lost") == 1

        token.refresh_from_db()
        assert abs(token.revoked_at - now()) < timedelta(minutes=10)

    def test_k16_seal_with_a_wrong_host_clock_covers_no_row_that_can_still_change(self, row, wrong_host):
        recent = row(issued_at=now(), expires_at=now() + timedelta(hours=1))
        old = row(issued_at=now() - DAY, expires_at=now() - DAY + timedelta(hours=1))

        sealed = audit.seal(keys.evidence_keys())

        assert [(made.first, made.last) for made in sealed.made] == [(old.pk, old.pk)]
        assert sealed.waiting == 1
        assert recent.pk > old.pk
        assert audit.verify(keys.evidence_keys()).problems == []

    def test_k16_prune_with_a_wrong_host_clock_deletes_no_row_of_a_live_token(self, row, wrong_host):
        row(issued_at=now(), expires_at=now() + timedelta(hours=1))

        audit.prune(now() + 30 * DAY, keys.evidence_keys())

        assert IssuedToken.objects.count() == 1

    def test_k16_refusal_counts_are_kept_for_35_days_if_the_host_clock_is_wrong(self, wrong_host):
        hour = now().replace(minute=0, second=0, microsecond=0)
        kept = refusal_counts.RETENTION - timedelta(hours=3)
        RefusalCount.objects.create(role="issuer", reason="method", hour=hour - kept, count=1)

        assert refusal_counts.trim()
        assert RefusalCount.objects.count() == 1


class TestAnIssuerOrAGatewayWithAWrongClock:
    def test_k16_key_ring_with_a_wrong_host_clock_contains_and_publishes_every_valid_key(self, wrong_host):
        retired = keys.rotate(SIG, force=True).retired
        keys.rotate(ENC, force=True)
        ring.clear_cache()
        stored = {key.kid for key in Key.objects.filter(use=SIG)}

        assert {jwk["kid"] for jwk in keys.current_ring().published()} == stored
        assert retired.kid in keys.current_ring().verification_keys()
        assert len(keys.current_ring().decryption_keys()) == Key.objects.filter(use=ENC).count()

    def test_k16_key_ring_with_a_wrong_host_clock_omits_a_key_after_its_retention(self, wrong_host):
        retired = keys.rotate(SIG, force=True).retired
        write(Key.objects.filter(pk=retired.pk), retired_at=now() - 400 * DAY)
        ring.clear_cache()

        assert retired.kid not in keys.current_ring().verification_keys()

    def test_k16_revocation_list_with_a_wrong_host_clock_contains_every_token_that_a_gateway_may_accept(
        self, row, wrong_host
    ):
        token = row(issued_at=now(), expires_at=now() + timedelta(hours=1))
        IssuedToken.objects.filter(pk=token.pk).update(revoked_at=now())

        assert str(token.jti) in trust.read_revocations().tokens


class TestAnIssuerAndAGatewayWithTheSameWrongClock:
    @pytest.mark.parametrize("hours", HOURS)
    def test_k16_gateway_refuses_tokens_of_a_revoked_user_if_issuer_and_gateway_share_a_wrong_clock(
        self, empty_gateway_caches, user, hours
    ):
        with host_clock(hours):
            _, text = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())
            assert status(text) == 204

        tokens = audit.issued_tokens().filter(audit.filter_by_user("ada"), revoked_at=None)
        scopes = audit.scopes_of_user("ada")
        audit.revoke(tokens, keks=conf.key_encryption_keys, reason="lost", scopes=scopes)

        gateway_views.clear_caches()
        with host_clock(hours):
            assert status(text) == 401


class TestTheToleranceOfAGateway:
    """Tests of the tolerance for `iat` and `exp` if the clocks of the issuer's host and the gateway's host differ."""

    @pytest.fixture(autouse=True)
    def _empty_caches(self, empty_gateway_caches):
        pass

    @pytest.fixture
    def token(self, user):
        return issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())[1]

    @pytest.mark.parametrize(("behind", "expected"), [(0, 204), (55, 204), (90, 401)])
    def test_gateway_refuses_new_tokens_if_its_clock_is_more_than_a_minute_behind(self, token, behind, expected):
        with time_machine.travel(datetime.now(UTC) - timedelta(seconds=behind)):
            assert status(token) == expected

    def test_gateway_whose_clock_is_90_s_behind_accepts_a_token_from_30_s_after_its_issue(self, user):
        issued_at = int(time.time())
        text = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=issued_at)[1]

        found = {}
        for age in (29, 30, 31):
            with time_machine.travel(datetime.fromtimestamp(issued_at + age - 90, UTC), tick=False):
                found[age] = status(text)

        assert found == {29: 401, 30: 204, 31: 204}

    @pytest.mark.parametrize("leeway", [0, 120])
    def test_leeway_of_two_minutes_extends_the_expiry_and_the_tolerance_for_iat(self, user, settings, leeway):
        settings.INSTACCESS = {"LEEWAY": leeway}
        issued_at = int(time.time())
        text = issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=issued_at)[1]

        found = {}
        for offset in (-120, 3600 + 119):
            with time_machine.travel(datetime.fromtimestamp(issued_at + offset, UTC), tick=False):
                found[offset] = status(text)

        assert set(found.values()) == ({401} if leeway == 0 else {204})


class TestTheCheck:
    def messages(self):
        return [message for message in run_checks(databases=["default"]) if message.id == "instaccess.W034"]

    def test_check_does_not_report_clocks_that_agree(self):
        assert self.messages() == []

    @pytest.mark.parametrize(("hours", "text"), [(2, "ahead of"), (-2, "behind")])
    def test_check_reports_the_difference_between_the_clocks(self, hours, text):
        with host_clock(hours):
            found = self.messages()

        if connection.vendor == "sqlite":  # The check skips SQLite, which has no clock of its own.
            assert found == []
            return
        [message] = found
        seconds = float(message.msg.split(" is ")[1].split(" ")[0])
        assert abs(seconds - 7200) < checks.CLOCK_DIFFERENCE
        assert f"seconds {text} the clock of the database 'default'" in message.msg
        assert "NTP" in message.hint

    def test_check_of_the_clocks_tolerates_the_time_that_the_measurement_takes(self, monkeypatch):
        for difference, reported in (((5.2, 0.1), True), ((5.2, 0.4), False), ((-5.2, 0.1), True), ((4.9, 0), False)):
            monkeypatch.setattr(database_clock, "compare", lambda using, d=difference: database_clock.Difference(*d))
            assert bool(self.messages()) == reported

    def test_check_of_the_clocks_does_not_report_an_unavailable_database(self):
        def fail(*args):
            raise OperationalError("gone")

        with connection.execute_wrapper(fail):
            assert checks.check_clock(databases=["default"]) == []
