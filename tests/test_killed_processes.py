"""Tests of keys and tokens with processes that are killed at every step, on the configured database."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from instaccess import audit, trust
from instaccess.conf import KeyEncryptionKey, kek_id
from instaccess.keys import evidence_keys, provision, ring
from instaccess.models import Checkpoint, IssuedToken, Key, PruneMarker, Revocation
from tests.support import tasks
from tests.support.processes import Crew, KilledError, TaskError
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


Kids = dict[tuple[str, str], str]


@pytest.fixture
def killed_after_each_statement(crew: Crew, rsa_pool: Any) -> Callable[..., Iterator[Kids]]:
    """Return a function that runs a task repeatedly from the same initial keys, and kills the process.

    Each run is killed one SQL statement later than the previous run. After each kill, the function yields the kids of
    the initial keys. The iteration ends when the task completes. `prepare` creates rows before each run.
    """

    def run_and_kill(
        task: Callable[..., Any],
        *args: Any,
        own_keys: int = 0,
        prepare: Callable[[Kids], None] = lambda start: None,
        **settings: Any,
    ) -> Iterator[Kids]:
        for number in itertools.count(1):
            for model in (Key, IssuedToken, Revocation, Checkpoint, PruneMarker):
                model.objects.all().delete()
            rsa_pool.rewind()
            ring.clear_cache()
            start = {(key.use, key.status): key.kid for key in provision.init()}
            prepare(start)
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


class TestAKilledRotation:
    def test_o5_a_killed_rotation_leaves_usable_keys_and_completes_when_run_again(
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

    def test_o5_tokens_can_be_decrypted_after_a_rotation_of_the_encryption_key_was_killed(
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
    def test_o5_a_killed_revocation_leaves_usable_keys_and_completes_when_run_again(
        self, crew, rsa_pool, user, killed_after_each_statement
    ):
        # The fixture replaces (SIG, CURRENT) with the kid of the initial current key.
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

    def test_k22_gateways_refuse_the_tokens_of_a_revoked_key_if_the_revocation_is_killed_at_any_statement(
        self, row, killed_after_each_statement
    ):
        def create_tokens(start: Kids) -> None:
            for _ in range(3):
                row(signing_kid=start[SIG, CURRENT])

        for _ in killed_after_each_statement(tasks.revoke, (SIG, CURRENT), own_keys=2, prepare=create_tokens):
            live = IssuedToken.objects.filter(revoked_at=None).count()
            # Gateways read the revoked key, so they refuse the tokens even before the audit rows are marked.
            assert list(trust.read_revocations().keys) == kids(SIG, REVOKED)
            assert kids(SIG, REVOKED) or live == 3


class TestAKilledChangeOfTheAuditLog:
    @pytest.fixture
    def create_tokens(self, row):
        def create(start: Kids) -> None:
            for age in (40 * 86_400, 9000, 0, 0):
                row(age=age, signing_kid=start[SIG, CURRENT])

        return create

    @pytest.mark.parametrize(
        "command",
        [
            ("revoke", "--user", "ada", "--reason", "laptop lost"),
            ("erase-name", "--user", "ada"),
            ("seal",),
            ("prune", "--older-than", "30d", "--batch", "1"),
        ],
        ids=lambda command: command[0],
    )
    def test_k22_a_killed_command_on_the_audit_log_leaves_valid_evidence_and_completes_when_run_again(
        self, crew, create_tokens, killed_after_each_statement, command
    ):
        for _ in killed_after_each_statement(tasks.manage_tokens, *command, prepare=create_tokens):
            assert audit.verify(evidence_keys()).summary == ""

            [again] = crew.start()
            with suppress(TaskError):  # The second run can fail if the killed process completed the work.
                again.ask(tasks.manage_tokens, *command)

            report = audit.verify(evidence_keys())
            result = {
                "revoke": IssuedToken.objects.exclude(revoked_at=None).count() == 2,
                "erase-name": not IssuedToken.objects.exclude(user_name=audit.ERASED_NAME).exists(),
                "seal": report.sealed == 2,
                "prune": (IssuedToken.objects.count(), report.pruned and report.pruned.rows) == (3, 1),
            }
            assert (report.summary, result[command[0]]) == ("", True)


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

            assert sealed_under() == {kek_id(KeyEncryptionKey(b"\2" * 32))}
            [with_new_kek_only] = crew.start(KEY_ENCRYPTION_KEYS=[NEW_KEK])
            assert with_new_kek_only.ask(tasks.database_check) == []
            assert {key.kid for key in Key.objects.all()} == set(start.values())
        # Check that some processes were killed when only a part of the keys was resealed.
        assert kek_counts == {1, 2}


class TestAKilledIssuer:
    @pytest.mark.parametrize(
        ("place", "name", "rows"),
        [
            (tasks.die_before, "instaccess.tokens.sign", 0),
            (tasks.die_after, "instaccess.tokens.sign", 0),
            (tasks.die_after, "instaccess.tokens.encrypt", 0),
            (tasks.die_before, "instaccess.audit.commit", 0),
            (tasks.die_after, "instaccess.audit.commit", 1),
            (tasks.die_after, "instaccess.issuer.issuing.issue", 1),
            (tasks.die_before, "instaccess.web.json_response", 1),
        ],
    )
    def test_o4_the_audit_row_of_a_token_is_committed_before_the_response(
        self, crew, initial_keys, access_token, place, name, rows
    ):
        [server] = crew.start()
        server.ask(place, name)

        with pytest.raises(KilledError):
            server.ask(tasks.post, access_token.token)

        assert IssuedToken.objects.count() == rows

    def test_o4_no_token_is_returned_without_an_audit_row_if_the_issuer_is_killed_at_any_statement(
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
