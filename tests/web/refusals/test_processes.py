"""Tests of the refusal counts of several processes, and of a process that exits or is killed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from django.db import connection

from instaccess.models import RefusalCount
from instaccess.web import refusals
from tests.support import forks, processes, tasks
from tests.support.processes import KilledError, together
from tests.web.refusals.helpers import GATEWAY_URL, PACKAGE, REAL_TRANSACTIONS, total, written

pytestmark = pytest.mark.django_db


@REAL_TRANSACTIONS
class TestProcessesThatCountRefusals:
    def test_processes_that_write_refusal_counts_concurrently_lose_no_count(self, crew):
        workers = crew.start(6)
        clients = [f"client-{number}" for number in range(10)]
        for number in range(5):
            # Give each worker the clients in a different order. If the workers locked the rows in these orders, the
            # workers could deadlock.
            for worker in workers:
                clients.append(clients.pop(0))
                worker.ask(tasks.refuse, *clients, f"new-{number}", f"newer-{number}")
            together(workers, tasks.meet_at, "instaccess.audit.refusal_counts.add")
            assert together(workers, tasks.write_refusals) == [12] * 6

        assert total() == 6 * 5 * 12
        assert RefusalCount.objects.values("client_id").distinct().count() == 20

    def test_killed_process_loses_only_its_pending_refusal_counts(self, crew):
        [worker] = crew.start()
        worker.ask(tasks.refuse, "c", "", "", "")
        worker.ask(tasks.write_refusals)
        worker.ask(tasks.refuse, "c", "", "")
        worker.ask(tasks.die_before, "instaccess.audit.refusal_counts.add")
        with pytest.raises(KilledError):
            worker.ask(tasks.write_refusals)

        assert total() == 4

    @pytest.mark.parametrize("number", range(1, 7))
    def test_process_that_is_killed_during_a_write_has_written_all_refusal_counts_or_none(self, crew, number):
        [worker] = crew.start()
        worker.ask(tasks.refuse, "a", "b", "c")
        worker.ask(tasks.die_after_statement, number)
        with pytest.raises(KilledError):
            worker.ask(tasks.write_refusals)

        assert total() in (0, 3)

    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_forked_process_can_write_even_if_its_parent_was_writing_during_the_fork(self):
        counter = refusals.RefusalCounter()

        assert forks.run_in_child(counter._lock, counter.flush) == 0

    def test_process_that_exits_normally_writes_its_pending_refusal_counts(self):
        run_process("Client().get(url)")

        assert written() == {("gateway", "no_credentials", "", ""): 1}

    def test_refusal_counts_of_a_test_run_are_not_written_to_the_real_database(self):
        # Simulate a test runner: the settings name one database during the tests and another database at exit.
        name = connection.settings_dict["NAME"]
        run_process(
            "settings = connections['default'].settings_dict\n"
            "settings['NAME'] = 'of the tests'\n"
            "Client().get(url)\n"
            f"settings['NAME'] = {str(name)!r}"
        )

        assert written() == {}


def run_process(script: str) -> None:
    """Run a script in a new process that uses the database of this test run."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import django; django.setup()\n"
            "from django.db import connections\nfrom django.test import Client\n"
            f"url = {GATEWAY_URL!r}\n{script}",
        ],
        env=processes.environment(),
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE,
        check=False,
    )
    assert (done.returncode, "not written" in done.stderr) == (0, False), done.stderr
