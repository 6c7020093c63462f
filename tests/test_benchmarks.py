"""`make bench`, a very short one: every endpoint proves that it does its work before it is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent


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
