"""Tests of the client in examples/node, with Node."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.client.campus import SELF, Campus
from tests.client.helpers import ACCESS_TOKEN, TOKENS, Site, running
from tests.support import readme
from tests.support.paths import ROOT
from tests.support.proxies import program

pytestmark = pytest.mark.services

FOLDER = ROOT / "examples/node"
TOO_MANY = b"429 Too Many Requests (Rate Limit Exceeded)\n"
INVALID = (401, b'{"errors":[{"message":"Invalid access token."}]}', {})


def node(file: Path, **environment: str) -> str:
    done = subprocess.run(
        [program("node", "run `apt-get install nodejs`"), str(file)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def run(url: str, steps: list[dict[str, Any]], refreshed: list[str] | None = None, **options: Any) -> Any:
    scenario = {"baseUrl": url, "options": {"accessToken": ACCESS_TOKEN, **options}, "steps": steps}
    return json.loads(node(ROOT / "tests/client/node.mjs", SCENARIO=json.dumps({**scenario, "refreshed": refreshed})))


class TestTheNodeClient:
    def test_node_client_uses_one_token_for_parallel_requests_until_a_minute_before_its_expiry(self, site):
        url = f"{site.url}/a"

        result = run(site.url, [{"urls": [url] * 8}, {"advance": 3539, "urls": [url]}, {"advance": 1, "urls": [url]}])

        assert result["results"] == [[200] * 8, [200], [200]]
        assert [authorization for _, _, authorization, _ in site.calls] == [f"Bearer {TOKENS[0]}"] * 9 + [
            f"Bearer {TOKENS[1]}"
        ]

    def test_node_client_repeats_a_request_once_with_the_same_body_after_a_401(self, site):
        site.accepts = lambda token: token == TOKENS[1]

        result = run(site.url, [{"urls": [f"{site.url}/a"], "options": {"method": "POST", "body": "text"}}])

        assert result["results"] == [[200]]
        assert [(token, body) for *_, token, body in site.calls] == [
            (f"Bearer {TOKENS[0]}", b"text"),
            (f"Bearer {TOKENS[1]}", b"text"),
        ]

    def test_node_client_requests_only_two_tokens_in_thirty_seconds_if_a_service_refuses_every_token(self, site):
        site.accepts = lambda token: False

        result = run(site.url, [{"urls": [f"{site.url}/a"]}] * 3)

        assert (result["results"], site.issued) == ([[401]] * 3, 2)

    def test_node_client_waits_for_the_time_in_retry_after_unless_the_time_exceeds_the_limit(self, site):
        site.refusals = [(429, TOO_MANY, {"Retry_After": "17"}), (403, b"403 Forbidden (Rate Limit Exceeded)\n", {})]
        waited = run(site.url, [{"urls": [f"{site.url}/a"]}])
        site.refusals = [(429, TOO_MANY, {"Retry_After": "100"})]
        gave_up = run(site.url, [{"urls": [f"{site.url}/a"]}])

        assert (waited["results"], waited["slept"]) == ([[200]], [17, 2])
        assert (gave_up["results"][0]["message"], gave_up["slept"]) == (
            "Wait for 100 more seconds, then try again.",
            [],
        )

    def test_node_client_refreshes_a_refused_access_token(self, site):
        site.refusals = [INVALID]

        result = run(site.url, [{"urls": [f"{site.url}/a"]}], refreshed=["fresh"])

        assert result["results"] == [[200]]
        assert site.access_tokens == [f"Bearer {ACCESS_TOKEN}", "Bearer fresh"]

    @pytest.mark.parametrize(
        ("status", "body", "code"),
        [
            (401, INVALID[1], "access token"),
            (401, b'{"errors":[{"message":"Insufficient scopes on access token."}]}', "scope"),
            (404, b"", "base url"),
            (307, b"", "response"),
            (200, b"<html>", "response"),
            (500, ACCESS_TOKEN.encode(), "unavailable"),
        ],
    )
    def test_node_client_reports_a_refusal_as_an_error_that_contains_no_token(self, site, status, body, code):
        site.refusals = [(status, body, {"Location": f"{site.url}/stolen"})]

        result = run(site.url, [{"urls": [f"{site.url}/a"]}])

        assert result["results"][0]["code"] == code
        assert site.calls == []
        assert ACCESS_TOKEN not in json.dumps(result)

    def test_node_client_sends_no_token_to_another_origin(self, site):
        with running(Site()) as other:
            other.accepts = lambda token: True
            site.redirects["/a"] = f"{other.url}/b"

            result = run(site.url, [{"urls": [f"{other.url}/a"]}, {"urls": [f"{site.url}/a"]}])

        assert result["results"][0]["code"] == "origin"
        assert [(path, authorization) for _, path, authorization, _ in other.calls] == [("/b", None)]
        assert not any(secret in result["repr"] for secret in (ACCESS_TOKEN, TOKENS[0]))

    def test_snippet_in_the_readme_of_the_node_client_uses_a_real_issuer_and_service(
        self, campus: Campus, tmp_path: Path
    ):
        [snippet] = readme.snippets((FOLDER / "README.md").read_text())
        (tmp_path / "example.mjs").write_text(snippet.code)
        (tmp_path / "instaccess.mjs").write_text((FOLDER / "instaccess.mjs").read_text())
        access_token = campus.site.access_tokens["ada"].pop()
        before = campus.audit_rows

        assert node(tmp_path / "example.mjs", BASE_URL=campus.url, ACCESS_TOKEN=access_token) == "ada\n"
        assert campus.audit_rows - before == 1
        assert SELF in snippet.code
