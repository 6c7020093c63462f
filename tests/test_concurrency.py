"""Tests of keys and tokens that several processes use at the same time, on the configured database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from instaccess.keys import provision
from instaccess.models import IssuedToken, Key
from instaccess.trust.material import to_text
from tests.support import tasks
from tests.support.processes import PATIENCE, together, within
from tests.support.stored_keys import CURRENT, ENC, FUTURE, PAST, REVOKED, SIG, current_kid, kids, write

pytestmark = pytest.mark.django_db(transaction=True)


class TestSeveralForcedRotations:
    @pytest.mark.parametrize("use", [SIG, ENC])
    @pytest.mark.parametrize("count", [2, 8])
    def test_k1_only_one_of_several_concurrent_forced_rotations_takes_effect(
        self, crew, initial_keys, rsa_pool, use, count
    ):
        before = current_kid(use)
        workers = crew.start(count, keys=[[rsa_pool.take() for _ in range(3)] for _ in range(count)])
        # When the workers meet in this function, each worker has decided to rotate.
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        done = together(workers, tasks.rotate, use)

        [winner] = [outcome for outcome in done if outcome["activated"]]
        assert [outcome["lost_race"] for outcome in done].count(True) == count - 1
        assert current_kid(use) == winner["activated"] != before
        assert kids(use, PAST) == [before]
        assert len(kids(use, FUTURE)) == 1

    def test_a7_eight_processes_that_receive_the_same_rotation_request_rotate_once(
        self, crew, initial_keys, rsa_pool
    ):
        before = current_kid(SIG)
        workers = crew.start(8, keys=[[rsa_pool.take()] for _ in range(8)])

        done = together(workers, tasks.rotate, SIG, True, before)

        assert sum(bool(outcome["activated"]) for outcome in done) == 1
        assert kids(SIG, PAST) == [before]


class TestTwoCronJobs:
    def test_k1_two_concurrent_cron_jobs_run_a_due_rotation_only_once(self, crew, initial_keys, rsa_pool):
        long_ago = timezone.now() - timedelta(days=40)
        write(Key.objects.all(), created_at=long_ago)
        write(Key.objects.filter(status=CURRENT), activated_at=long_ago)
        before, successor = current_kid(SIG), kids(SIG, FUTURE)
        workers = crew.start(2, keys=[[rsa_pool.take() for _ in range(3)] for _ in range(2)])
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        together(workers, tasks.manage_keys, "rotate")

        assert [current_kid(SIG)] == successor
        assert kids(SIG, PAST) == [before]
        assert (len(kids(SIG, FUTURE)), len(kids(ENC, CURRENT)), len(kids(ENC, FUTURE))) == (1, 1, 1)


class TestTwentyConcurrentInitCommands:
    def test_k5_twenty_concurrent_init_commands_generate_one_set_of_keys(self, crew, rsa_pool):
        workers = crew.start(20, keys=[[rsa_pool.take() for _ in provision.INITIAL] for _ in range(20)])
        # When the workers meet in this function, each worker has found every key missing.
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        together(workers, tasks.init)

        assert sorted(Key.objects.values_list("use", "status")) == sorted(provision.INITIAL)
        provision.check_sealed_keys()


class TestTwoImportsOfTheSameKey:
    @pytest.mark.parametrize("second_use", [ENC, SIG])
    def test_k11_key_that_two_processes_import_concurrently_is_stored_once(self, crew, rsa_pool, second_use):
        key = rsa_pool.take()
        pem = to_text(key, file_format="pem")
        workers = crew.start(2)
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        workers[0].start_task(tasks.import_public, pem, ENC)
        workers[1].start_task(tasks.import_public, pem, second_use)
        answers = [worker.answer() for worker in workers]

        assert key.thumbprint() in answers
        assert sum("already stored" in answer for answer in answers) == 1
        assert Key.objects.get().kid == key.thumbprint()


class TestARevocationDuringARotation:
    @pytest.mark.parametrize("use", [SIG, ENC])
    def test_k1_exactly_one_key_is_current_after_a_concurrent_revocation_and_rotation(
        self, crew, initial_keys, rsa_pool, use
    ):
        stolen = current_kid(use)
        workers = crew.start(2, keys=[[rsa_pool.take() for _ in range(3)] for _ in range(2)])
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        workers[0].start_task(tasks.revoke, stolen)
        workers[1].start_task(tasks.rotate, use)
        [worker.answer() for worker in workers]

        assert kids(use, REVOKED) == [stolen]
        assert current_kid(use) != stolen
        assert len(kids(use, FUTURE)) == 1
        assert Key.objects.get(kid=stolen).sealed_private_jwk == ""

    def test_two_concurrent_revocations_of_one_key_activate_only_one_future_key(self, crew, initial_keys, rsa_pool):
        stolen, successor = current_kid(SIG), kids(SIG, FUTURE)
        workers = crew.start(2, keys=[[rsa_pool.take() for _ in range(3)] for _ in range(2)])
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        together(workers, tasks.revoke, stolen)

        assert kids(SIG, REVOKED) == [stolen]
        assert [current_kid(SIG)] == successor
        assert len(kids(SIG, FUTURE)) == 1


class TestARevokedKey:
    @pytest.mark.parametrize("use", [SIG, ENC])
    def test_k10_process_that_cached_a_key_refuses_tokens_of_the_key_within_5_s_of_its_revocation(
        self, crew, initial_keys, rsa_pool, user, use
    ):
        stolen = current_kid(use)
        [server] = crew.start()
        [operator] = crew.start(keys=[[rsa_pool.take(), rsa_pool.take()]])
        token = server.ask(tasks.issue, user.pk)
        assert server.ask(tasks.accept, token) == ""

        operator.ask(tasks.revoke, stolen)

        assert within(5, lambda: server.ask(tasks.accept, token) == "unknown_kid")
        assert server.ask(tasks.current_kids)[use] == current_kid(use) != stolen
        assert stolen not in server.ask(tasks.published_kids)
        assert server.ask(tasks.accept, server.ask(tasks.issue, user.pk)) == ""

    def test_g21_tokens_of_a_revoked_key_are_marked_while_other_tokens_are_issued(
        self, crew, initial_keys, rsa_pool, user
    ):
        stolen = current_kid(SIG)
        servers = crew.start(3, KEY_CACHE_SECONDS=0)
        [operator] = crew.start(keys=[[rsa_pool.take() for _ in range(4)]])
        for server in servers:
            server.start_task(tasks.keep_issuing, user.pk)
        assert within(PATIENCE, lambda: IssuedToken.objects.count() > 30)

        operator.ask(tasks.revoke, stolen)
        assert within(PATIENCE, lambda: IssuedToken.objects.exclude(signing_kid=stolen).count() > 30)
        outcomes = [server.finish() for server in servers]
        # Revoke the key again, to mark tokens that a worker signed with its cached keys after the first revocation.
        operator.ask(tasks.revoke, stolen)

        # A worker may refuse a token that was issued before the revocation. No other error may occur.
        assert {key.partition(":")[0] for outcome in outcomes for key in outcome} <= {"issued", "InvalidToken"}
        assert not IssuedToken.objects.filter(signing_kid=stolen, revoked_at=None).exists()
        assert not IssuedToken.objects.exclude(signing_kid=stolen).exclude(revoked_at=None).exists()
