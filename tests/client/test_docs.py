"""Tests that run the snippets of docs/client.md, and compare the page with the code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instaccess import client
from instaccess.client import ClientError
from tests.client.campus import Campus
from tests.support import readme
from tests.support.paths import ROOT

PAGE = readme.page("client.md")
SNIPPETS = readme.snippets(PAGE)


class TestThePageOfTheClient:
    def test_page_of_the_client_lists_every_error(self):
        errors = {name for name in client.__all__ if issubclass(getattr(client, name), ClientError)} - {"ClientError"}

        assert {readme.code(row[0])[0] for row in readme.tables(PAGE)[0]} == errors

    def test_every_snippet_about_the_client_is_run_by_a_test(self):
        assert [snippet.language for snippet in SNIPPETS] == ["python"] * 3

    @pytest.mark.services
    @pytest.mark.parametrize(
        ("number", "printed"),
        [(0, "ada\n"), (1, "5\n"), (2, "ada ada ada ada\n")],
        ids=["requests", "refresh", "httpx"],
    )
    def test_snippet_about_the_client_works_with_a_real_issuer_and_service(
        self, campus: Campus, tmp_path: Path, number: int, printed: str
    ):
        (tmp_path / "example.py").write_text(SNIPPETS[number].code)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "BASE_URL": campus.url,
            "ACCESS_TOKEN": campus.site.access_tokens["ada"].pop(),
        }

        done = subprocess.run(
            [sys.executable, "-W", "error", str(tmp_path / "example.py")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")
