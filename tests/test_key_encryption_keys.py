"""Tests of losing and replacing the key-encryption key while several processes use it."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess.conf import KeyEncryptionKey, kek_id
from instaccess.keys import provision
from instaccess.models import IssuedToken, Key
from tests.support import tasks
from tests.support.processes import PATIENCE, within
from tests.support.stored_keys import (
    FUTURE,
    NEW_KEK,
    OLD_KEK,
    PAST,
    SIG,
    all_columns,
    current_kid,
    kids,
    sealed_under,
)

pytestmark = pytest.mark.django_db(transaction=True)


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

        resealing.start_task(tasks.manage_keys, "reseal")
        rotating.start_task(tasks.rotate, SIG)
        resealing.answer(), rotating.answer()

        assert ([current_kid(SIG)], kids(SIG, PAST)) == (successor, [before])
        assert sealed_under() == {kek_id(KeyEncryptionKey(b"\2" * 32))}

    def test_a_private_key_erased_during_a_reseal_is_not_restored(self, crew, initial_keys, rsa_pool):
        # Erase the key that the command reseals first, because the worker pauses before it seals the first key.
        stolen = Key.objects.order_by("use", "-created_at").first().kid
        resealing, other = crew.start(
            2, keys=[[], [rsa_pool.take(), rsa_pool.take()]], KEY_ENCRYPTION_KEYS=[NEW_KEK, OLD_KEK]
        )
        resealing.ask(tasks.meet_at, "instaccess.keys.sealing.seal")
        resealing.start_task(tasks.manage_keys, "reseal")
        # After this wait, the worker has read the row of the key, but has not changed the row.
        assert within(PATIENCE, crew.any_worker_waits)

        other.ask(tasks.revoke, stolen)
        other.ask(tasks.meet)
        resealing.answer()

        assert Key.objects.get(kid=stolen).sealed_private_jwk == ""


class TestALostKeyEncryptionKey:
    def test_o6_no_token_is_issued_and_no_key_is_changed_until_a_lost_key_encryption_key_is_restored(
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
            """Replace each server with a server that uses `keks`.

            Returns the new servers, and for each old server the number of requests by outcome.
            """
            replacements, outcomes = [], []
            for server in servers:
                [successor] = crew.start(KEY_ENCRYPTION_KEYS=list(keks), KEY_CACHE_SECONDS=0)
                successor.start_task(tasks.keep_issuing, user.pk)
                issued = IssuedToken.objects.count()
                assert within(PATIENCE, lambda issued=issued: IssuedToken.objects.count() > issued + 20)
                outcomes.append(server.finish())
                replacements.append(successor)
            return replacements, outcomes

        servers = crew.start(2, KEY_ENCRYPTION_KEYS=[OLD_KEK], KEY_CACHE_SECONDS=0)
        for server in servers:
            server.start_task(tasks.keep_issuing, user.pk)
        servers, first = restart(servers, NEW_KEK, OLD_KEK)
        [operator] = crew.start(KEY_ENCRYPTION_KEYS=[NEW_KEK, OLD_KEK])
        assert operator.ask(tasks.manage_keys, "reseal")["resealed"] == 3
        servers, second = restart(servers, NEW_KEK)
        third = [server.finish() for server in servers]

        outcomes = first + second + third
        assert [set(outcome) for outcome in outcomes] == [{"issued"}] * 6
        assert sum(outcome["issued"] for outcome in outcomes) == IssuedToken.objects.count()
        assert sealed_under() == {kek_id(KeyEncryptionKey(b"\2" * 32))}
