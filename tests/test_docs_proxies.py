"""Tests that compare the snippets and names in docs/proxies.md with the code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.http import HttpResponse
from django.test import override_settings
from django.test.client import Client

from instaccess.conf import KEEPING_SLACK, REVOCATION_SECONDS, conf
from instaccess.conf import checks as conf_checks
from instaccess.gateway import views
from tests.conftest import ISSUE_URL
from tests.support import readme
from tests.support.paths import ROOT

TEXT = readme.page("proxies.md")
SNIPPETS = readme.snippets(TEXT)
SHELL = [line for snippet in SNIPPETS if snippet.language == "sh" for line in snippet.lines]
PYTHON = [snippet.code for snippet in SNIPPETS if snippet.language == "python"]
SNIPPET_PARTS = ("corsheaders", "without_websockets", "KEEP_DECISION_SECONDS")
ORIGIN = "https://app.example.edu"


def python_snippet(part: str) -> str:
    [code] = [code for code in PYTHON if part in code]
    return code


class TestSnippetsOnThePageOfProxies:
    def test_every_snippet_on_the_page_of_proxies_is_covered_by_a_test(self):
        assert {snippet.language for snippet in SNIPPETS} == {"sh", "python"}
        assert len(PYTHON) == sum(part in code for code in PYTHON for part in SNIPPET_PARTS)

    def test_shell_snippet_on_the_page_of_proxies_names_an_existing_folder(self):
        [line] = SHELL
        *command, folder = shlex.split(line)

        assert command == ["python", "-m", "pytest"]
        assert (ROOT / folder).is_dir()

    def test_snippet_that_keeps_decisions_passes_the_system_checks(self):
        names: dict[str, Any] = {}
        exec(python_snippet("KEEP_DECISION_SECONDS"), names)

        with override_settings(INSTACCESS=names["INSTACCESS"]):
            assert conf_checks.check_settings() == []
            assert conf.keep_decision_seconds == 1

    def test_documented_asgi_application_answers_websocket_handshakes(self, tmp_path):
        (tmp_path / "asgi.py").write_text(python_snippet("without_websockets"))
        script = (
            "import asyncio, json, asgi\n"
            "from asgiref.testing import ApplicationCommunicator\n"
            "scope = {'type': 'websocket', 'path': '/unknown', 'query_string': b'',\n"
            "         'headers': [(b'host', b'localhost')], 'extensions': {'websocket.http.response': {}}}\n"
            "async def story():\n"
            "    application = ApplicationCommunicator(asgi.application, scope)\n"
            "    await application.send_input({'type': 'websocket.connect'})\n"
            "    return (await application.receive_output(60))['status']\n"
            "print(json.dumps(asyncio.run(story())))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "DJANGO_SETTINGS_MODULE": "testproject.settings"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )

        assert json.loads(done.stdout) == 404


@pytest.mark.django_db
class TestTheSettingsOfDjangoCorsHeaders:
    @pytest.fixture
    def client(self) -> Iterator[Client]:
        names: dict[str, Any] = {
            "INSTALLED_APPS": list(django_settings.INSTALLED_APPS),
            "MIDDLEWARE": list(django_settings.MIDDLEWARE),
        }
        exec(python_snippet("corsheaders"), names)
        changed = {name: value for name, value in names.items() if name.isupper()}
        with override_settings(**changed):
            yield Client(SERVER_NAME="testserver")

    @pytest.mark.parametrize("path", [ISSUE_URL, "/api/v1/users/self"])
    def test_documented_cors_settings_answer_a_preflight_request_before_the_view_runs(self, client, path):
        answer = client.options(
            path,
            headers={
                "Origin": ORIGIN,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization",
            },
        )

        assert answer.status_code == 200
        assert answer["Access-Control-Allow-Origin"] == ORIGIN
        assert "authorization" in answer["Access-Control-Allow-Headers"]
        assert "POST" in answer["Access-Control-Allow-Methods"]
        assert "Access-Control-Allow-Credentials" not in answer

    def test_documented_cors_settings_do_not_allow_another_origin(self, client):
        answer = client.options(
            ISSUE_URL, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        )

        assert "Access-Control-Allow-Origin" not in answer

    def test_documented_cors_settings_expose_the_token_and_the_headers_of_the_throttle(
        self, client, access_token, initial_keys
    ):
        answer = client.post(ISSUE_URL, headers={"Origin": ORIGIN, "Authorization": f"Bearer {access_token.token}"})

        assert answer.status_code == 201
        assert answer["Access-Control-Allow-Origin"] == ORIGIN
        exposed = set(answer["Access-Control-Expose-Headers"].split(", "))
        assert {"X-Rate-Limit-Remaining", "X-Request-Cost"} <= exposed & set(answer.headers)

    def test_documented_cors_settings_add_no_headers_to_internal_paths(self, client, initial_keys):
        answer = client.get("/internal/services/jwks", headers={"Origin": ORIGIN})

        assert "Access-Control-Allow-Origin" not in answer


class TestKeptDecisionsOnThePageOfProxies:
    TABLES = readme.tables(readme.section("Keep decisions", TEXT))

    def test_page_of_proxies_lists_the_headers_of_a_decision_that_may_be_kept(self):
        response = HttpResponse(status=204)
        views._allow_keeping(response, 1)

        cells = [row[0] for table in self.TABLES for row in table]
        documented = [readme.code(cell)[0] for cell in cells if re.match(r"`[\w-]+: ", cell)]
        assert documented == [f"{name}: {value}" for name, value in response.items() if name != "Content-Type"]

    def test_times_of_a_kept_decision_add_up_to_five_seconds_with_the_default_of_the_deny_list(self):
        [times] = [rows for rows in self.TABLES if any("DENY_LIST_SECONDS" in row[1] for row in rows)]
        slack = [int(row[1]) for row in times if row[1].isdigit()]

        assert sum(slack) == KEEPING_SLACK
        assert conf.deny_list_seconds + 1 + KEEPING_SLACK == REVOCATION_SECONDS

    def test_tmpfs_of_the_nginx_example_has_room_for_all_kept_decisions(self):
        folder = ROOT / "examples/nginx"
        [zone] = re.findall(r"keys_zone=decisions:(\d+)m", (folder / "nginx.conf").read_text())
        [size] = re.findall(r"^    tmpfs .* size=(\d+)m,", (folder / "README.md").read_text(), re.MULTILINE)
        # nginx needs 128 bytes of the zone per decision, and stores each decision in a separate file. A file contains
        # at most 8 KiB of the cache key, 4 KiB of headers, and 4 KiB that nginx adds.
        files, largest = int(zone) * 2**20 // 128, 16 * 2**10

        # Half of the tmpfs is for files that nginx is still writing.
        assert 2 * files * largest <= int(size) * 2**20


class TestNamesOnThePageOfProxies:
    @pytest.mark.parametrize(
        ("file", "switch"),
        [
            ("nginx/nginx.conf", '# "OPTIONS " yes;'),
            ("caddy/Caddyfile", "{$CORS_PREFLIGHTS:off}"),
            ("envoy/envoy.yaml", "numerator: 0}"),
            ("traefik/dynamic.yml", "# cors-preflight:"),
        ],
    )
    def test_example_configurations_mark_the_switch_for_preflight_requests(self, file, switch):
        text = (ROOT / "examples" / file).read_text()

        assert text.count("CORS SWITCH") == text.count(switch) == 1
        assert text.index("CORS SWITCH") < text.index(switch)
