"""Tests of short benchmark runs, which check that each endpoint works before they measure its speed."""

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

from benchmarks import report, report_nginx
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE
from tests.support.servers import wait_until

pytestmark = pytest.mark.services

SECONDS = "1"
"""The duration of each measurement, in seconds.

For a fraction of a second, the benchmarks interrupt wrk. On a busy machine, the interruption can arrive before wrk is
ready or before wrk has received a response, and the benchmarks then fail.
"""


def run_benchmarks(folder: Path, *options: str) -> dict[str, Any]:
    """Run `python -m benchmarks.run` with the options, and return the results."""
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


def test_benchmarks_measure_every_endpoint(tmp_path):
    sizes = ("--seconds", SECONDS, "--rounds", "1")
    results = run_benchmarks(tmp_path, "--only", "http", "--database", "sqlite", *sizes)

    measured = results["http"]["sqlite"]["endpoints"]
    expected = {
        "ours",
        "nothing",
        "naive",
        "dot",
        "simplejwt",
        "knox",
        "floor",
        "guarded-floor",
        "gateway",
        "service",
    }
    assert expected <= {each["name"] for each in measured}
    assert all(each["requests/s"]["median"] > 0 for each in measured)


def test_benchmarks_measure_every_server(tmp_path):
    results = run_benchmarks(tmp_path, "--only", "servers", "--seconds", SECONDS, "--servers-rounds", "1")

    measured = {each["name"]: each for each in results["servers"]["servers"]}
    assert {"sync", "gthread", "gthread-pool", "uvicorn", "uvicorn-pool"} == measured.keys()
    for each in measured.values():
        assert {name for name, of in each["endpoints"].items() if of["requests/s"]["median"] > 0} == {
            "ours",
            "nothing",
        }
        assert each["memory of a worker at the end, bytes"] > 0


def test_benchmarks_measure_the_cost_of_a_gateway_that_nginx_queries(tmp_path):
    results = run_benchmarks(tmp_path, "--only", "behind_nginx", "--seconds", SECONDS, "--nginx-rounds", "1")

    rows = results["behind_nginx"]["rows"]
    assert {(each["tokens"], each["server"]) for each in rows} == {
        (tokens, server) for tokens in ("hot", "new") for server in ("none", "auth_request", "kept")
    }
    assert all(each["requests/s"]["median"] > 0 for each in rows)
    assert report_nginx.markdown(results).startswith("|")
    assert "behind nginx" in report_nginx.chart(results)


def test_benchmarks_measure_revocations(tmp_path):
    sizes = ("--listed", "100", "--tokens-of-user", "100", "--revocation-rounds", "1", "--seconds", SECONDS)
    results = run_benchmarks(tmp_path, "--only", "revocation", *sizes)["revocation"]

    assert set(results["one more revocation, ms of CPU"]) == {"issuer", "gateway, database", "gateway, URL"}
    assert results["p95, ratio to an empty list"]["median"] > 0
    assert results["all tokens of a user"]["tokens"] == 100
    assert "**Revocation**" in report.meaning(json.loads(report.RESULTS.read_text()) | {"revocation": results})


def test_benchmarks_compare_the_workers_of_a_gateway(tmp_path):
    output = tmp_path / "results.json"
    sizes = ["--seconds", SECONDS, "--worker-rounds", "1", "--stall-seconds", SECONDS, "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gateway_workers", *sizes],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())

    assert results["rates"].keys() == {"sync", "gthread"}
    statuses = {name: each["decisions"]["statuses"] for name, each in results["stalls"].items()}
    assert statuses == {
        f"{state}, {kind}": [503] if state == "cold" else [204]
        for state in ("busy", "idle", "cold")
        for kind in ("sync", "gthread")
    }


def test_benchmarks_measure_commands_that_read_or_change_many_audit_rows(tmp_path):
    results = run_benchmarks(tmp_path, "--only", "long_work", "--long-rows", "2000")["long_work"]
    sizes = results["sizes"]

    assert {name: each["rows"] for name, each in sizes["2000"].items()} == {
        **dict.fromkeys(("baseline", "verify", "export"), 2000),
        "seal": pytest.approx(2000, abs=5),
        **dict.fromkeys(("bare DELETE", "prune"), pytest.approx(1270, abs=10)),
        "reseal": pytest.approx(880, abs=160),
    }
    assert all(each["peak memory, bytes"] > 0 for each in sizes["2000"].values())
    stored = json.loads(report.RESULTS.read_text())
    assert "**Long work**: with 2,000 rows" in report.meaning(stored | {"long_work": results})


def test_benchmarks_compare_the_tokens_of_all_libraries_before_they_measure():
    # The program exits with an error before it measures if the outputs of the libraries differ.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crypto", "--crypto-rounds", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("instaccess") == 2


def processes_that_use(folder: Path) -> set[str]:
    """Return the command lines of all processes that store their temporary files in `folder`."""
    command_lines = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                command_lines.add((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return command_lines


@pytest.mark.parametrize("to_all", [True, False], ids=["Ctrl-C", "a signal to the first process only"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_benchmarks_leave_no_servers_and_no_files(tmp_path, number, to_all):
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.run", "--only", "nothing", "--database", "sqlite", "--rounds", "1000"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            wait_until(
                lambda: processes_that_use(tmp_path), lambda lines: any("benchmarks.wsgi" in line for line in lines)
            )

            (os.killpg if to_all else os.kill)(process.pid, number)

            output = process.communicate(timeout=PATIENCE)[0]
        except BaseException:
            # Leaving the `with` statement would wait for the benchmarks, which take a quarter of an hour.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 130
    assert "Traceback" not in output
    # Wait, because wrk runs for one second even if the benchmarks are interrupted.
    wait_until(lambda: processes_that_use(tmp_path), lambda lines: not lines)
    assert list(tmp_path.iterdir()) == []


STOPPED_TWICE = """
import os, signal
from benchmarks.sections import exit_on_signals

both = [signal.SIGINT, signal.SIGTERM]
exit_on_signals()
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


def test_interrupted_benchmarks_clean_up_and_print_no_traceback_if_further_signals_arrive():
    command = [sys.executable, "-c", STOPPED_TWICE]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "tidied\n", "")
