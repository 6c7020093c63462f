"""Tests of keys and tokens with several processes on the configured database, some of which are killed."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from instaccess.conf import kek_id
from instaccess.keys import provision, sealing
from instaccess.models import IssuedToken, Key
from instaccess.trust.material import to_text
from tests.support import tasks
from tests.support.processes import PATIENCE, Crew, KilledError, together

pytestmark = pytest.mark.django_db(transaction=True)

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
CURRENT, FUTURE, PAST, REVOKED = Key.Status.CURRENT, Key.Status.FUTURE, Key.Status.PAST, Key.Status.REVOKED
OLD_KEK, NEW_KEK = (base64.urlsafe_b64encode(bytes([fill]) * 32).decode() for fill in (1, 2))


@pytest.fixture
def crew(transactional_db: None) -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()


def kids(use: str, status: str) -> list[str]:
    return list(Key.objects.filter(use=use, status=status).values_list("kid", flat=True))


def current_kid(use: str) -> str:
    """Return the kid of the only current key of a use, and check that every key can be unsealed."""
    provision.check_sealed_keys()
    [kid] = kids(use, CURRENT)
    return kid


def sealed_under() -> set[str]:
    return {
        sealing.sealed_under(text)
        for text in Key.objects.exclude(sealed_private_jwk="").values_list("sealed_private_jwk", flat=True)
    }


def all_columns() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait for a condition. Returns whether it became true within the given number of seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


Kids = dict[tuple[str, str], str]


@pytest.fixture
def killed_after_each_statement(crew: Crew, rsa_pool: Any) -> Callable[..., Iterator[Kids]]:
    """Run a task repeatedly from the same initial keys, and kill the process one SQL statement later each time.

    The iteration ends when the task completes. After each kill, it yields the kids of the initial keys.
    """

    def run_and_kill(task: Callable[..., Any], *args: Any, own_keys: int = 0, **settings: Any) -> Iterator[Kids]:
        for number in itertools.count(1):
            Key.objects.all().delete()
            rsa_pool.rewind()
            start = {(key.use, key.status): key.kid for key in provision.init()}
            [worker] = crew.start(keys=[[rsa_pool.take() for _ in range(own_keys)]], **settings)
            worker.ask(tasks.die_after_statement, number)
            try:
                worker.ask(task, *(start.get(arg, arg) for arg in args))
            except KilledError:
                yield start
            else:
                assert number > 2
                return

    return run_and_kill


class TestSeveralForcedRotations:
    @pytest.mark.parametrize("use", [SIG, ENC])
    @pytest.mark.parametrize("count", [2, 8])
    def test_k1_one_of_several_forced_rotations_takes_effect(self, crew, initial_keys, rsa_pool, use, count):
        before = current_kid(use)
        workers = crew.start(count, keys=[[rsa_pool.take() for _ in range(3)] for _ in range(count)])
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")  # Each worker has decided to rotate.

        done = together(workers, tasks.rotate, use)

        [winner] = [outcome for outcome in done if outcome["activated"]]
        assert [outcome["lost_race"] for outcome in done].count(True) == count - 1
        assert current_kid(use) == winner["activated"] != before
        assert kids(use, PAST) == [before]
        assert len(kids(use, FUTURE)) == 1

    def test_a7_the_same_request_in_eight_processes_rotates_once(self, crew, initial_keys, rsa_pool):
        before = current_kid(SIG)
        workers = crew.start(8, keys=[[rsa_pool.take()] for _ in range(8)])

        done = together(workers, tasks.rotate, SIG, True, before)

        assert sum(bool(outcome["activated"]) for outcome in done) == 1
        assert kids(SIG, PAST) == [before]


class TestTwoCronJobs:
    def test_k1_a_due_rotation_takes_effect_once(self, crew, initial_keys, rsa_pool):
        long_ago = timezone.now() - timedelta(days=40)
        Key.objects.update(created_at=long_ago)
        Key.objects.filter(status=CURRENT).update(activated_at=long_ago)
        before, successor = current_kid(SIG), kids(SIG, FUTURE)
        workers = crew.start(2, keys=[[rsa_pool.take() for _ in range(3)] for _ in range(2)])
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        together(workers, tasks.manage_keys, "rotate")

        assert [current_kid(SIG)] == successor
        assert kids(SIG, PAST) == [before]
        assert (len(kids(SIG, FUTURE)), len(kids(ENC, CURRENT)), len(kids(ENC, FUTURE))) == (1, 1, 1)


class TestTwentyInits:
    def test_k5_twenty_inits_generate_one_set_of_keys(self, crew, rsa_pool):
        workers = crew.start(20, keys=[[rsa_pool.take() for _ in provision.INITIAL] for _ in range(20)])
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")  # Each worker has found every key missing.

        together(workers, tasks.init)

        assert sorted(Key.objects.values_list("use", "status")) == sorted(provision.INITIAL)
        provision.check_sealed_keys()


class TestTwoImportsOfTheSameKey:
    @pytest.mark.parametrize("second_use", [ENC, SIG])
    def test_k11_a_key_imported_twice_is_stored_once(self, crew, rsa_pool, second_use):
        key = rsa_pool.take()
        pem = to_text(key, file_format="pem", private=False)
        workers = crew.start(2)
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        workers[0].tell(tasks.import_public, pem, ENC)
        workers[1].tell(tasks.import_public, pem, second_use)
        answers = [worker.answer() for worker in workers]

        assert key.thumbprint() in answers
        assert sum("already stored" in answer for answer in answers) == 1
        assert Key.objects.get().kid == key.thumbprint()


class TestARevocationDuringARotation:
    @pytest.mark.parametrize("use", [SIG, ENC])
    def test_k1_a_revocation_and_a_rotation_leave_one_sound_current_key(self, crew, initial_keys, rsa_pool, use):
        stolen = current_kid(use)
        workers = crew.start(2, keys=[[rsa_pool.take() for _ in range(3)] for _ in range(2)])
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        workers[0].tell(tasks.revoke, stolen)
        workers[1].tell(tasks.rotate, use)
        [worker.answer() for worker in workers]

        assert kids(use, REVOKED) == [stolen]
        assert current_kid(use) != stolen
        assert len(kids(use, FUTURE)) == 1
        assert Key.objects.get(kid=stolen).sealed_private_jwk == ""

    def test_two_revocations_of_the_same_key_activate_one_successor(self, crew, initial_keys, rsa_pool):
        stolen, successor = current_kid(SIG), kids(SIG, FUTURE)
        workers = crew.start(2, keys=[[rsa_pool.take() for _ in range(3)] for _ in range(2)])
        together(workers, tasks.meet_at, "instaccess.keys.store.locked")

        together(workers, tasks.revoke, stolen)

        assert kids(SIG, REVOKED) == [stolen]
        assert [current_kid(SIG)] == successor
        assert len(kids(SIG, FUTURE)) == 1


class TestARevokedKey:
    @pytest.mark.parametrize("use", [SIG, ENC])
    def test_k10_a_process_that_cached_a_revoked_key_refuses_it_within_five_seconds(
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
            server.tell(tasks.keep_issuing, user.pk)
        assert within(PATIENCE, lambda: IssuedToken.objects.count() > 30)

        operator.ask(tasks.revoke, stolen)
        assert within(PATIENCE, lambda: IssuedToken.objects.exclude(signing_kid=stolen).count() > 30)
        outcomes = [server.finish() for server in servers]
        operator.ask(tasks.revoke, stolen)  # Marks tokens signed before a process read the keys again.

        # A token issued before the revocation and decrypted afterwards is refused. No other error may occur.
        assert {key.partition(":")[0] for outcome in outcomes for key in outcome} <= {"issued", "InvalidToken"}
        assert not IssuedToken.objects.filter(signing_kid=stolen, revoked_at=None).exists()
        assert not IssuedToken.objects.exclude(signing_kid=stolen).exclude(revoked_at=None).exists()


class TestAKilledRotation:
    def test_o5_a_killed_rotation_leaves_sound_keys_and_completes_when_run_again(
        self, crew, rsa_pool, killed_after_each_statement
    ):
        for start in killed_after_each_statement(tasks.rotate, SIG, own_keys=1):
            before, successor = start[SIG, CURRENT], start[SIG, FUTURE]
            assert current_kid(SIG) in {before, successor}
            assert len(kids(SIG, FUTURE)) == 1

            [again] = crew.start(keys=[[rsa_pool.take()]])
            again.ask(tasks.rotate, SIG, True, before)

            assert current_kid(SIG) == successor
            assert kids(SIG, PAST) == [before]
            assert len(kids(SIG, FUTURE)) == 1

    def test_o5_tokens_can_be_decrypted_after_a_rotation_was_killed(
        self, crew, rsa_pool, user, killed_after_each_statement
    ):
        for start in killed_after_each_statement(tasks.rotate, ENC, own_keys=3):
            [server] = crew.start()
            assert server.ask(tasks.accept, server.ask(tasks.issue, user.pk)) == ""

            [again] = crew.start(keys=[[rsa_pool.take() for _ in range(3)]])
            again.ask(tasks.rotate, ENC, True, start[ENC, CURRENT])

            assert current_kid(ENC) != start[ENC, CURRENT]
            assert kids(ENC, PAST) == [start[ENC, CURRENT]]
            assert len(kids(ENC, FUTURE)) == 1


class TestAKilledRevocation:
    def test_o5_a_killed_revocation_leaves_sound_keys_and_completes_when_run_again(
        self, crew, rsa_pool, user, killed_after_each_statement
    ):
        # The fixture replaces (SIG, CURRENT) by the kid of the initial current key.
        for start in killed_after_each_statement(tasks.revoke, (SIG, CURRENT), own_keys=2):
            stolen, successor = start[SIG, CURRENT], start[SIG, FUTURE]
            assert current_kid(SIG) in {stolen, successor}
            [server] = crew.start()
            server.ask(tasks.issue, user.pk)

            [again] = crew.start(keys=[[rsa_pool.take(), rsa_pool.take()]])
            again.ask(tasks.revoke, stolen)

            assert (kids(SIG, REVOKED), current_kid(SIG)) == ([stolen], successor)
            assert len(kids(SIG, FUTURE)) == 1
            assert not IssuedToken.objects.filter(signing_kid=stolen, revoked_at=None).exists()


class TestAKilledInit:
    def test_o5_a_killed_init_completes_when_run_again(self, crew, rsa_pool):
        for number in itertools.count(1):
            Key.objects.all().delete()
            rsa_pool.rewind()
            first, again = crew.start(2, keys=[[rsa_pool.take() for _ in provision.INITIAL] for _ in range(2)])
            first.ask(tasks.die_after_statement, number)
            try:
                first.ask(tasks.init)
            except KilledError:
                again.ask(tasks.init)
                assert sorted(Key.objects.values_list("use", "status")) == sorted(provision.INITIAL)
                provision.check_sealed_keys()
            else:
                assert number > len(provision.INITIAL)
                break


class TestAKilledReseal:
    @pytest.fixture(autouse=True)
    def seal_with_the_old_key(self, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}

    def test_o5_a_killed_reseal_leaves_every_key_usable_and_completes_when_run_again(
        self, crew, user, killed_after_each_statement
    ):
        both = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}
        kek_counts = set()
        for start in killed_after_each_statement(tasks.manage_keys, "reseal", **both):
            kek_counts.add(len(sealed_under()))
            [server] = crew.start(**both)
            assert server.ask(tasks.accept, server.ask(tasks.issue, user.pk)) == ""

            [again] = crew.start(**both)
            again.ask(tasks.manage_keys, "reseal")

            assert sealed_under() == {kek_id(b"\2" * 32)}
            [with_new_kek_only] = crew.start(KEY_ENCRYPTION_KEYS=[NEW_KEK])
            assert with_new_kek_only.ask(tasks.database_check) == []
            assert {key.kid for key in Key.objects.all()} == set(start.values())
        assert kek_counts == {1, 2}  # Some processes were killed in the middle of the reseal.


class TestAChangeOfKeysDuringAReseal:
    @pytest.fixture(autouse=True)
    def seal_with_the_old_key(self, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}

    def test_o7_a_rotation_during_a_reseal_loses_no_key(self, crew, initial_keys, rsa_pool, settings):
        before, successor = current_kid(SIG), kids(SIG, FUTURE)
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [NEW_KEK, OLD_KEK]}
        resealing, rotating = crew.start(2, keys=[[], [rsa_pool.take()]], **settings.INSTACCESS)
        resealing.ask(tasks.meet_at, "instaccess.keys.sealing.seal")
        rotating.ask(tasks.meet_at, "instaccess.keys.store.locked")

        resealing.tell(tasks.manage_keys, "reseal")
        rotating.tell(tasks.rotate, SIG)
        resealing.answer(), rotating.answer()

        assert ([current_kid(SIG)], kids(SIG, PAST)) == (successor, [before])
        assert sealed_under() == {kek_id(b"\2" * 32)}

    def test_a_private_key_erased_during_a_reseal_is_not_restored(self, crew, initial_keys, rsa_pool):
        stolen = Key.objects.order_by("use", "-created_at").first().kid  # This is the key that is resealed first.
        resealing, other = crew.start(
            2, keys=[[], [rsa_pool.take(), rsa_pool.take()]], KEY_ENCRYPTION_KEYS=[NEW_KEK, OLD_KEK]
        )
        resealing.ask(tasks.meet_at, "instaccess.keys.sealing.seal")
        resealing.tell(tasks.manage_keys, "reseal")
        assert within(PATIENCE, crew.any_worker_waits)  # The worker has read the row.

        other.ask(tasks.revoke, stolen)
        other.ask(tasks.meet)
        resealing.answer()

        assert Key.objects.get(kid=stolen).sealed_private_jwk == ""


class TestAKilledIssuer:
    @pytest.mark.parametrize(
        ("place", "name", "rows"),
        [
            (tasks.die_before, "instaccess.tokens.sign", 0),
            (tasks.die_after, "instaccess.tokens.sign", 0),
            (tasks.die_after, "instaccess.tokens.encrypt", 0),
            (tasks.die_before, "instaccess.issuer.issuing._commit", 0),
            (tasks.die_after, "instaccess.issuer.issuing._commit", 1),
            (tasks.die_after, "instaccess.issuer.issuing.issue", 1),
            (tasks.die_before, "instaccess.web.json_response", 1),
        ],
    )
    def test_o4_the_row_is_committed_before_the_response(self, crew, initial_keys, access_token, place, name, rows):
        [server] = crew.start()
        server.ask(place, name)

        with pytest.raises(KilledError):
            server.ask(tasks.post, access_token.token)

        assert IssuedToken.objects.count() == rows

    def test_o4_no_token_is_returned_without_a_row_wherever_the_process_is_killed(
        self, crew, initial_keys, access_token
    ):
        for number in itertools.count(1):
            [server] = crew.start()
            server.ask(tasks.die_after_statement, number)
            try:
                status, token = server.ask(tasks.post, access_token.token)
            except KilledError:
                continue
            assert status == 201
            assert IssuedToken.objects.filter(jti=server.ask(tasks.jti, token)).exists()
            assert number > 2
            break


class TestALostKeyEncryptionKey:
    def test_o6_without_the_key_encryption_key_nothing_is_issued_or_changed_until_it_is_restored(
        self, crew, access_token, rsa_pool, settings
    ):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}
        provision.init()
        before = all_columns()
        [server] = crew.start(keys=[[rsa_pool.take() for _ in range(9)]], KEY_ENCRYPTION_KEYS=[NEW_KEK])

        assert server.ask(tasks.post, access_token.token) == (503, "")
        assert server.ask(tasks.database_check) == ["instaccess.E008"]
        for command in (
            ["instaccess_init"],
            ["instaccess_keys", "rotate"],
            ["instaccess_keys", "rotate", "--force"],
            ["instaccess_keys", "rotate", "--force", "--use", "enc"],
            ["instaccess_keys", "reseal"],
        ):
            assert server.ask(tasks.attempt, *command) == "CommandError", command
        assert all_columns() == before

        [repaired] = crew.start(KEY_ENCRYPTION_KEYS=[NEW_KEK, OLD_KEK])
        status, token = repaired.ask(tasks.post, access_token.token)
        assert status == 201
        assert repaired.ask(tasks.accept, token) == ""
        assert all_columns() == before


class TestReplacingTheKeyEncryptionKeyUnderLoad:
    def test_o7_replacing_the_key_encryption_key_under_load_loses_no_token(self, crew, user, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [OLD_KEK]}
        provision.init()

        def restart(servers: list[Any], *keks: str) -> tuple[list[Any], list[dict[str, int]]]:
            """Replace one server after another by a server with other settings, as a rolling deployment does."""
            replacements, outcomes = [], []
            for server in servers:
                [successor] = crew.start(KEY_ENCRYPTION_KEYS=list(keks), KEY_CACHE_SECONDS=0)
                successor.tell(tasks.keep_issuing, user.pk)
                issued = IssuedToken.objects.count()
                assert within(PATIENCE, lambda issued=issued: IssuedToken.objects.count() > issued + 20)
                outcomes.append(server.finish())
                replacements.append(successor)
            return replacements, outcomes

        servers = crew.start(2, KEY_ENCRYPTION_KEYS=[OLD_KEK], KEY_CACHE_SECONDS=0)
        for server in servers:
            server.tell(tasks.keep_issuing, user.pk)
        servers, first = restart(servers, NEW_KEK, OLD_KEK)
        [operator] = crew.start(KEY_ENCRYPTION_KEYS=[NEW_KEK, OLD_KEK])
        assert operator.ask(tasks.manage_keys, "reseal")["resealed"] == 3
        servers, second = restart(servers, NEW_KEK)
        third = [server.finish() for server in servers]

        outcomes = first + second + third
        assert [set(outcome) for outcome in outcomes] == [{"issued"}] * 6
        assert sum(outcome["issued"] for outcome in outcomes) == IssuedToken.objects.count()
        assert sealed_under() == {kek_id(b"\2" * 32)}
