"""`make bench`, a very short one: every endpoint proves that it does its work before it is measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.processes import PATIENCE
from tests.support.servers import until

pytestmark = pytest.mark.services


def trial(folder: Path, *options: str) -> dict[str, Any]:
    """The figures of `python -m benchmarks.run` with these options."""
    output = folder / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *options, "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(output.read_text())


def test_a_trial_of_all_endpoints_has_figures_for_each(tmp_path):
    results = trial(tmp_path, "--only", "http", "--database", "sqlite", "--seconds", "0.2", "--rounds", "1")

    measured = results["http"]["sqlite"]["endpoints"]
    asked = {"ours", "nothing", "naive", "dot", "simplejwt", "knox", "floor", "guarded-floor", "gateway", "service"}
    assert asked <= {each["name"] for each in measured}
    assert all(each["requests/s"]["median"] > 0 for each in measured)


def test_a_trial_of_all_servers_has_figures_for_each(tmp_path):
    results = trial(tmp_path, "--only", "servers", "--seconds", "0.4", "--servers-rounds", "1")

    measured = {each["name"]: each for each in results["servers"]["servers"]}
    assert {"sync", "gthread", "gthread-pool", "uvicorn", "uvicorn-pool"} == measured.keys()
    for each in measured.values():
        assert {name for name, of in each["endpoints"].items() if of["requests/s"]["median"] > 0} == {
            "ours",
            "nothing",
        }
        assert each["memory of a worker at the end, bytes"] > 0


def test_the_other_ways_to_mint_and_open_a_token_do_what_ours_do():
    # It compares what comes out before it measures.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crypto", "--crypto-rounds", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("instaccess") == 2


def those_who_use(folder: Path) -> set[str]:
    """The command lines of all processes that were told to put their temporary files there."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.add((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.parametrize("to_all", [True, False], ids=["Ctrl-C", "a signal to the first process alone"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped_halfway_leaves_neither_servers_nor_files_behind(tmp_path, number, to_all):
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.run", "--only", "nothing", "--database", "sqlite", "--rounds", "1000"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        until(lambda: those_who_use(tmp_path), lambda found: any("benchmarks.wsgi" in line for line in found))

        (os.killpg if to_all else os.kill)(process.pid, number)

        said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 130
    assert "Traceback" not in said
    # wrk goes on for the second that it was told.
    until(lambda: those_who_use(tmp_path), lambda found: not found)
    assert list(tmp_path.iterdir()) == []


STOPPED_TWICE = """
import os, signal
from benchmarks.sections import stop_tidily

both = [signal.SIGINT, signal.SIGTERM]
stop_tidily()
signal.pthread_sigmask(signal.SIG_BLOCK, both)
for number in both:
    os.kill(os.getpid(), number)
try:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
finally:
    for number in both:
        os.kill(os.getpid(), number)
    print("tidied")
"""


def test_signals_that_come_together_or_while_it_tidies_neither_interrupt_that_nor_print_anything():
    command = [sys.executable, "-c", STOPPED_TWICE]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "tidied\n", "")
