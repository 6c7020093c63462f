"""Tests of operations that fail at each of their SQL statements in turn. A second run completes the operation."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_refresh_token_model

from instaccess import audit, keys, signals, trust, users
from instaccess.audit import names, revocation
from instaccess.audit.evidence import checkpoints, pruning
from instaccess.conf import conf
from instaccess.exceptions import KeyRefused
from instaccess.keys import lifecycle, provision, ring
from instaccess.models import Checkpoint, IssuedToken, Key, PruneMarker, RefusalCount, Revocation
from instaccess.web import refusal_counter
from tests.keys.helpers import public_pem
from tests.support import key_texts
from tests.support.failing import stops
from tests.support.stored_keys import (
    CURRENT,
    ENC,
    FUTURE,
    NEW_KEK,
    OLD_KEK,
    PAST,
    REVOKED,
    SIG,
    current_kid,
    kids,
    sealed_under,
)

pytestmark = pytest.mark.django_db(transaction=True)

DAY = 86_400
LIVE = 5
"""The number of live tokens: two full batches of two tokens, and one batch of one token."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    for module in (revocation, names, pruning):
        monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(checkpoints, "ROWS", 2)


@pytest.fixture
def prepare(rsa_pool, user, row) -> Callable[[], None]:
    """Return a function that deletes all keys and audit rows, and creates initial keys, live and expired tokens."""

    def prepare_() -> None:
        for model in (Key, IssuedToken, Revocation, Checkpoint, PruneMarker, RefusalCount):
            model.objects.all().delete()
        rsa_pool.rewind()
        ring.clear_cache()
        provision.init()
        kid = current_kid(SIG)
        for age in (*(40 * DAY + second for second in (3, 2, 1)), 9000, *range(LIVE)):
            row(age=age, signing_kid=kid)

    return prepare_


@pytest.fixture
def check(prepare) -> Callable[..., None]:
    """Return a function that makes an operation fail at each of its statements in turn.

    After each failure, the function runs the operation again. `before` is called before each run that can fail,
    `between` after each failure, and `after` after each completed run. At least `least` runs must fail.
    """

    def check_(
        act: Callable[[], Any],
        *,
        before: Callable[[], Any] = lambda: None,
        between: Callable[[], Any],
        after: Callable[[], Any],
        least: int,
    ) -> None:
        def prepare_run() -> None:
            prepare()
            before()

        stopped = 0
        for _ in stops(act, prepare=prepare_run):
            stopped += 1
            between()
            act()
            after()
        after()
        assert stopped >= least

    return check_


@pytest.fixture
def announced():
    """Yield a list that collects the token ids (jti) of all `tokens_revoked` signals."""
    jtis: list[str] = []

    def receive(sender: Any, jtis: list[str], **kwargs: Any) -> None:
        collected.extend(jtis)

    collected = jtis
    signals.tokens_revoked.connect(receive)
    yield jtis
    signals.tokens_revoked.disconnect(receive)


def run(*command: str) -> None:
    call_command(*command, stdout=io.StringIO())


def revoked_tokens() -> set[str]:
    return {str(jti) for jti in IssuedToken.objects.exclude(revoked_at=None).values_list("jti", flat=True)}


def assert_evidence_is_intact() -> None:
    assert audit.verify(keys.evidence_keys()).summary == ""


class TestRevokingAKey:
    @staticmethod
    def stolen() -> str:
        """Return the kid of the key that signed the tokens."""
        return IssuedToken.objects.values_list("signing_kid", flat=True)[0]

    def nothing_or_refused_by_gateways(self) -> None:
        """Check that nothing is revoked, or that gateways refuse all tokens of the key.

        A gateway refuses a token of a revoked key even if the audit row of the token isn't marked as revoked.
        """
        is_revoked = kids(SIG, REVOKED) == [self.stolen()]
        assert list(trust.read_revocations().keys) == ([self.stolen()] if is_revoked else [])
        assert is_revoked or not revoked_tokens()
        current_kid(SIG)

    def everything(self) -> None:
        assert kids(SIG, REVOKED) == [self.stolen()]
        assert len(revoked_tokens()) == LIVE
        assert current_kid(SIG) != self.stolen()
        assert len(kids(SIG, FUTURE)) == 1
        assert_evidence_is_intact()

    @pytest.mark.parametrize("future_keys", [0, 1])
    def test_k22_revocation_of_a_key_that_failed_midway_completes_when_run_again(self, check, future_keys):
        def before() -> None:
            if not future_keys:
                Key.objects.filter(use=SIG, status=FUTURE).delete()

        check(
            lambda: lifecycle.revoke(self.stolen(), reason="laptop lost"),
            before=before,
            between=self.nothing_or_refused_by_gateways,
            after=self.everything,
            least=10,
        )

    def test_k22_command_that_failed_midway_while_revoking_a_key_completes_when_run_again(self, check):
        check(
            lambda: run("instaccess_keys", "revoke", "--kid", self.stolen(), "--reason", "laptop lost"),
            between=self.nothing_or_refused_by_gateways,
            after=self.everything,
            least=10,
        )

    def test_k22_admin_page_that_failed_midway_while_revoking_a_key_completes_when_sent_again(
        self, check, admin_client
    ):
        def send() -> None:
            url = reverse("admin:instaccess_key_revoke", args=[self.stolen()])
            assert admin_client.post(url, {"confirmed": "yes", "reason": "laptop lost"}).status_code == 302

        check(send, between=self.nothing_or_refused_by_gateways, after=self.everything, least=10)

    def test_k22_tokens_revoked_signal_is_sent_once_for_each_token_and_only_for_revoked_tokens(
        self, check, announced
    ):
        def between() -> None:
            assert set(announced) == revoked_tokens()
            self.nothing_or_refused_by_gateways()

        def after() -> None:
            assert sorted(announced) == sorted(revoked_tokens())
            announced.clear()
            self.everything()

        check(lambda: lifecycle.revoke(self.stolen()), between=between, after=after, least=10)


class TestRevokingTokens:
    def test_k22_revocation_of_tokens_that_failed_midway_continues_when_run_again(self, check, announced, user):
        def revoke() -> None:
            tokens = audit.revocable_tokens().filter(audit.filter_by_user("ada"))
            audit.revoke(tokens, keks=conf.key_encryption_keys, reason="laptop lost", by=user)

        def between() -> None:
            assert sorted(announced) == sorted(revoked_tokens())
            assert_evidence_is_intact()

        def after() -> None:
            assert len(announced) == len(set(announced)) == LIVE
            assert set(announced) == revoked_tokens()
            announced.clear()
            assert_evidence_is_intact()

        check(revoke, between=between, after=after, least=10)

    def test_a21_revocation_with_oauth2_tokens_that_failed_midway_completes_when_run_again(
        self, check, user, make_access_token
    ):
        refresh_tokens, access_tokens = get_refresh_token_model().objects, get_access_token_model().objects

        def before() -> None:
            refresh_tokens.all().delete()
            access_tokens.all().delete()
            for number in range(2):
                access_token = make_access_token()
                refresh_tokens.create(
                    user=user, application=access_token.application, token=str(number), access_token=access_token
                )

        def usable() -> int:
            return access_tokens.count() + refresh_tokens.filter(revoked=None).count()

        def between() -> None:
            # Either the OAuth2 tokens are usable and no token is revoked, or gateways refuse all tokens of the user.
            assert (usable(), list(trust.read_revocations().users)) in (
                (4, []),
                (0, [users.user_uuid(user)]),
            )
            assert usable() == 0 or not revoked_tokens()

        def after() -> None:
            assert usable() == 0
            assert len(revoked_tokens()) == LIVE
            first = Revocation.objects.order_by("number")[0]
            assert first.reason == "x (4 OAuth2 tokens revoked too)"
            assert_evidence_is_intact()

        command = ("instaccess_tokens", "revoke", "--user", "ada", "--reason", "x", "--oauth2-tokens")
        check(lambda: run(*command), before=before, between=between, after=after, least=15)


class TestChangingKeys:
    @staticmethod
    def keys_are_usable() -> None:
        current_kid(SIG)
        current_kid(ENC)
        assert Key.objects.exclude(status=CURRENT).filter(use=SIG).exists()

    def test_k22_rotation_that_failed_midway_leaves_usable_keys_and_completes_when_run_again(self, check):
        def rotate() -> None:
            first = IssuedToken.objects.values_list("signing_kid", flat=True)[0]
            lifecycle.rotate(SIG, force=True, expected_current=first)

        def between() -> None:
            assert (len(kids(SIG, PAST)), len(kids(SIG, FUTURE))) in {(0, 1), (1, 1)}
            self.keys_are_usable()

        def after() -> None:
            assert len(kids(SIG, PAST)) == len(kids(SIG, FUTURE)) == 1
            self.keys_are_usable()

        check(rotate, between=between, after=after, least=8)

    def test_k22_rotation_that_failed_midway_revokes_the_remaining_tokens_of_a_revoked_key_when_run_again(
        self, check
    ):
        def revoke() -> None:
            lifecycle.revoke(current_kid(SIG))
            # Simulate a worker with cached keys that issues tokens after the revocation.
            IssuedToken.objects.update(revoked_at=None, revoked_by="", revocation_reason="")

        def after() -> None:
            assert len(revoked_tokens()) == LIVE
            assert len(kids(SIG, FUTURE)) == 1
            self.keys_are_usable()

        check(lambda: lifecycle.rotate(SIG), before=revoke, between=lambda: None, after=after, least=8)

    def test_k22_activation_that_failed_midway_leaves_usable_keys_and_completes_when_run_again(self, check):
        def activate() -> None:
            if future := kids(SIG, FUTURE):
                lifecycle.activate(future[0], force=True)

        def after() -> None:
            assert (len(kids(SIG, PAST)), kids(SIG, FUTURE)) == (1, [])
            current_kid(SIG)

        check(activate, between=self.keys_are_usable, after=after, least=5)

    def test_k22_import_that_failed_midway_leaves_usable_keys_and_completes_when_run_again(self, check, rsa_pool):
        # Import the fourth key of the pool, because `prepare` stores the first three keys of the pool in each run.
        pem = [public_pem(rsa_pool) for _ in range(4)][-1]

        def import_key() -> None:
            # The import fails if an earlier run has already stored the key.
            with suppress(KeyRefused):
                key_texts.import_key(pem, use=ENC)

        def after() -> None:
            assert len(kids(ENC, FUTURE)) == 1
            self.keys_are_usable()

        check(import_key, between=self.keys_are_usable, after=after, least=4)

    def test_k22_generation_of_a_key_that_failed_midway_stores_at_most_one_key(self, check):
        def generate() -> None:
            if not kids(ENC, FUTURE):
                provision.generate(ENC)

        def after() -> None:
            assert len(kids(ENC, FUTURE)) == 1
            self.keys_are_usable()

        check(generate, between=self.keys_are_usable, after=after, least=4)

    def test_k22_init_that_failed_midway_completes_when_run_again(self, check, rsa_pool):
        def before() -> None:
            Key.objects.all().delete()
            rsa_pool.rewind()

        def after() -> None:
            assert sorted(Key.objects.values_list("use", "status")) == sorted(provision.INITIAL)
            self.keys_are_usable()

        check(provision.init, before=before, between=lambda: None, after=after, least=8)


class TestReplacingAllKeys:
    def test_k22_after_restore_replaces_all_keys_or_none_at_a_failure_and_completes_when_run_again(self, check):
        first: set[str] = set()

        def remember() -> None:
            first.clear()
            first.update(Key.objects.values_list("kid", flat=True))

        def between() -> None:
            revoked = set(Key.objects.filter(status=REVOKED).values_list("kid", flat=True))
            assert first & revoked in (set(), first)
            assert set(trust.read_revocations().keys) == revoked
            assert (trust.read_revocations().all_until > 0) == bool(revoked)
            assert revoked or not revoked_tokens()
            current_kid(SIG)
            current_kid(ENC)

        def after() -> None:
            between()
            assert Key.objects.filter(kid__in=first, status=REVOKED).count() == len(first)
            assert len(revoked_tokens()) == LIVE
            assert len(kids(SIG, FUTURE)) == 1
            assert not Revocation.objects.filter(completed_at=None).exists()
            assert_evidence_is_intact()

        check(
            lambda: run("instaccess_keys", "after-restore", "--yes"),
            before=remember,
            between=between,
            after=after,
            least=15,
        )


class TestResealing:
    def test_k22_reseal_that_failed_midway_completes_when_run_again(self, check, prepare, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}

        def reseal() -> None:
            settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}
            try:
                run("instaccess_keys", "reseal")
            finally:
                settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}

        def between() -> None:
            settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}
            current_kid(SIG)
            assert_evidence_is_intact()

        def after() -> None:
            settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK]}
            assert len(sealed_under()) == 1
            current_kid(SIG)
            assert_evidence_is_intact()
            settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}

        check(reseal, before=lambda: audit.seal(keys.evidence_keys()), between=between, after=after, least=15)


class TestTheAuditLog:
    def test_k22_seal_that_failed_midway_completes_when_run_again(self, check):
        def after() -> None:
            report = audit.verify(keys.evidence_keys())
            assert (report.summary, report.sealed) == ("", 4)

        check(lambda: audit.seal(keys.evidence_keys()), between=assert_evidence_is_intact, after=after, least=8)

    def test_k22_pruning_that_failed_midway_completes_when_run_again(self, check):
        def after() -> None:
            assert IssuedToken.objects.count() == 1 + LIVE
            report = audit.verify(keys.evidence_keys())
            assert (report.summary, report.pruned.rows, report.notes) == ("", 3, [])

        check(
            lambda: audit.prune(timezone.now() - timedelta(days=30), keys.evidence_keys(), batch=2),
            between=assert_evidence_is_intact,
            after=after,
            least=15,
        )

    def test_k22_erasing_a_user_name_completes_when_run_again_after_a_failure_midway(self, check, user):
        def after() -> None:
            assert set(IssuedToken.objects.values_list("user_name", flat=True)) == {names.ERASED}
            assert_evidence_is_intact()

        check(
            lambda: audit.erase_name(users.user_uuid(user), keks=conf.key_encryption_keys, by="admin"),
            between=assert_evidence_is_intact,
            after=after,
            least=8,
        )

    def test_k22_counts_of_refusals_are_written_once_after_a_write_that_failed_midway(self, check):
        def write() -> None:
            if not RefusalCount.objects.exists():
                refusal_counter.reset()
                refusal_counter.count("issuer", "expired", client_id="a")
                refusal_counter.count("gateway", "revoked")
            refusal_counter.flush()
            if sum(RefusalCount.objects.values_list("count", flat=True)) != 2:
                raise RuntimeError

        def after() -> None:
            assert sorted(RefusalCount.objects.values_list("reason", "count")) == [("expired", 1), ("revoked", 1)]

        check(write, between=lambda: None, after=after, least=4)
