"""The README against the code: what it shows works, what it lists is complete, what it names exists."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.test import override_settings
from django.urls import resolve

from benchmarks import report
from instaccess.conf import SCOPE, SETTINGS, conf
from instaccess.conf import checks as conf_checks
from instaccess.exceptions import Reason
from instaccess.keys import ring
from instaccess.trust import fetch, material
from instaccess.web import answers as web_answers
from tests.support import readme
from tests.support.paths import ROOT

PACKAGE = ROOT / "instaccess"
SHELL = [line for snippet in readme.snippets() if snippet.language == "sh" for line in snippet.lines]
OPENSSL = [line for line in SHELL if line.startswith("openssl ")]
PYTHON = [snippet.code for snippet in readme.snippets() if snippet.language == "python"]
JSON = [snippet.code for snippet in readme.snippets() if snippet.language == "json"]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


class TestTheSettingsTable:
    ROWS = {readme.code(name)[0]: default for name, _, default, _ in readme.tables(readme.section("Settings"))[0]}

    def test_has_a_row_for_each_setting_and_no_other(self):
        assert set(self.ROWS) == set(SETTINGS)

    def test_has_an_id_of_the_checks_for_each_setting(self):
        assert set(conf_checks.BAD_SETTING_IDS) == set(SETTINGS)
        assert len(set(conf_checks.BAD_SETTING_IDS.values())) == len(SETTINGS)

    @pytest.mark.parametrize("name", ROWS)
    def test_gives_the_default_in_force(self, name):
        documented = ast.literal_eval(readme.code(self.ROWS[name])[0])
        with override_settings(INSTACCESS={}):
            in_force = getattr(conf, SETTINGS[name])

        with override_settings(INSTACCESS={name: documented}):
            assert getattr(conf, SETTINGS[name]) == in_force


class TestTheSnippets:
    def test_are_in_languages_that_are_tested(self):
        assert {snippet.language for snippet in readme.snippets()} <= {"sh", "python", "json", "text"}

    @pytest.mark.parametrize("code", [code for code in PYTHON if "INSTACCESS =" in code])
    def test_of_settings_pass_the_checks(self, code, monkeypatch):
        monkeypatch.setenv("INSTACCESS_KEK", "A" * 43)
        monkeypatch.setenv("INSTACCESS_SERVICE_SECRET", "s" * 43)
        names: dict[str, object] = {}

        exec(code, names)

        with override_settings(INSTACCESS=names["INSTACCESS"]):
            assert conf_checks.check_settings() == []

    @pytest.mark.parametrize("code", PYTHON)
    def test_of_python_are_settings_or_steps_of_plugging_in_or_run_here(self, code):
        """The steps are carried out in test_packaging.py."""
        ast.parse(code)
        run_here = "INSTACCESS =" in code or "def post_worker_init" in code or code.startswith("LOGGING =")
        assert run_here or code in readme.section("Plugging it in")

    def test_of_logging_shows_what_went_well(self):
        [code] = [code for code in PYTHON if code.startswith("LOGGING =")]
        script = (
            f"{code}\nfrom django.conf import settings\nsettings.configure(LOGGING=LOGGING)\nimport django, logging\n"
            "django.setup()\nlogging.getLogger('instaccess.issuer').info('issued')"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

        assert done.stderr == "issued\n"

    @pytest.mark.django_db(transaction=True)
    def test_of_gunicorn_warm_a_worker_up(self, initial_keys):
        [code] = [code for code in PYTHON if "def post_worker_init" in code]
        names: dict[str, Any] = {}
        exec(code, names)

        names["post_worker_init"](object())

        assert all(key._private for key in ring.current_ring().keys if key.status == "current")

    @pytest.mark.parametrize("code", JSON)
    def test_of_claims_show_what_a_token_has(self, code, initial_keys, user):
        from instaccess.issuer import issuing
        from instaccess.keys import ring
        from instaccess.tokens import jose

        origin = issuing.Origin(canvas_domain="canvas.example.edu")
        _, text = issuing.issue(user=user, origin=origin, now=1795448096, encrypted=False)
        payload, _ = jose.verify(text, ring.current_ring().verification_keys())

        shown = json.loads(code)
        assert list(shown) == list(payload)
        assert shown["exp"] - shown["iat"] == payload["exp"] - payload["iat"]
        for claim in ("iss", "iat", "acct", "canvas_domain"):
            assert type(shown[claim]) is type(payload[claim])

    @pytest.mark.parametrize("line", SHELL)
    def test_of_the_shell_name_commands_there_are(self, line):
        words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z]+=\w+", word)]
        match words:
            case ["make", *targets]:
                assert set(targets) <= make_targets()
            case ["python" | ".venv/bin/python", "manage.py", command, *arguments]:
                app = get_commands()[command]
                found = load_command_class(app, command) if isinstance(app, str) else app
                found.create_parser("manage.py", command).parse_args(arguments)  # exits with an error for a bad one
            case ["curl", "-X", method, "-H", header, url]:
                assert resolve(urlsplit(url).path).url_name == "instaccess-issue"
                assert method == "POST"
                assert header.startswith("Authorization: Bearer ")
            case ["python", "-c", code]:
                ast.parse(code)
            case ["openssl", *_]:
                assert line in OPENSSL  # carried out below
            case ["python", "-m", "pip", "install", wheel]:
                assert wheel.startswith("dist/django_instaccess-")  # installed in test_packaging.py
            case _:
                pytest.fail(f"nothing tests `{line}`")

    def test_of_openssl_make_a_pair_that_gateway_and_issuer_take(self, tmp_path):
        for line in OPENSSL:
            subprocess.run(shlex.split(line), cwd=tmp_path, check=True, capture_output=True)

        private = material.parse((tmp_path / "gateway.pem").read_text())
        public = material.parse((tmp_path / "gateway.pub.pem").read_text())
        assert (private.has_private, public.has_private) == (True, False)
        assert private.thumbprint() == public.thumbprint()

    def test_of_the_key_encryption_key_makes_one_that_is_taken(self, capsys):
        line = next(line for line in SHELL if line.startswith("python -c"))

        exec(shlex.split(line)[2])

        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [capsys.readouterr().out.strip()]}):
            assert len(conf.key_encryption_keys) == 1


class TestWhatTheTextNames:
    def test_are_make_targets_there_are(self):
        named = set(re.findall(r"`(?:[A-Z]+=\S+ )?make ([a-z-]+)`", readme.TEXT))

        assert {"demo", "wheel"} <= named <= make_targets()

    def test_are_management_commands_there_are(self):
        named = set(re.findall(r"manage\.py (\w+)|`(instaccess_\w+)`", readme.TEXT))

        assert {left or right for left, right in named} <= set(get_commands())

    def test_are_options_of_those_commands(self):
        for command, option in re.findall(r"manage\.py (\w+) (--[a-z-]+)", readme.TEXT):
            app = get_commands()[command]
            found = load_command_class(app, command) if isinstance(app, str) else app
            assert isinstance(found, BaseCommand)
            assert option in found.create_parser("manage.py", command).format_help()

    def test_are_ids_of_checks_there_are(self):
        source = "".join(path.read_text() for path in PACKAGE.glob("*/checks.py"))
        for check_id in re.findall(r"`instaccess\.([EW]\d{3})`", readme.TEXT):
            assert check_id in source

    @pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md"])
    def test_are_files_and_headings_there_are(self, document):
        text = (ROOT / document).read_text()
        headings = {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in headings
            elif not target.startswith("https://"):
                assert (ROOT / target).exists(), target

    def test_is_the_scope_as_it_is(self):
        assert set(re.findall(r"url:[A-Z]+\\?\|[\w/]+", readme.TEXT)) == {SCOPE, SCOPE.replace("|", "\\|")}


class TestTheTablesOfAnswers:
    def test_have_each_refusal_word_for_word(self):
        shown = {
            (int(status), readme.code(body)[0], header == "yes")
            for _, status, body, header in readme.tables(readme.section("What clients get"))[0]
            if status not in {"201", "429"}
        }
        refusals = [
            kind
            for kind in vars(web_answers).values()
            if isinstance(kind, type) and kind.__module__ == web_answers.__name__
        ]

        answers = {
            (kind.status, json.dumps(kind.body, separators=(",", ":")), kind.challenge)
            for kind in refusals
            if issubclass(kind, web_answers.Refusal) and kind not in {web_answers.Refusal, web_answers.Throttled}
        }
        assert f"| {web_answers.THROTTLED} |" in readme.section("What clients get").replace("`", "")
        assert shown == answers

    def test_list_each_reason_that_a_log_or_a_chart_can_contain(self):
        by_the_issuer, by_readers, problems = readme.tables(readme.section("When something goes wrong"))
        of_the_issuer, of_readers = (
            [reason for row in rows for reason in readme.code(row[0])] for rows in (by_the_issuer, by_readers)
        )
        failures = {word for row in problems for word in readme.code(row[0])} & set(Reason)

        assert len(of_the_issuer) == len(set(of_the_issuer))
        assert len(of_readers) == len(set(of_readers))
        assert not failures & {*of_the_issuer, *of_readers}
        assert {*of_the_issuer, *of_readers} | failures == set(Reason) - NOT_SHOWN

    def test_list_a_reason_for_two_roles_only_if_both_roles_give_it(self):
        by_the_issuer, by_readers, _ = readme.tables(readme.section("When something goes wrong"))
        of_the_issuer, of_readers = (
            {reason for row in rows for reason in readme.code(row[0])} for rows in (by_the_issuer, by_readers)
        )

        assert of_the_issuer & of_readers == GIVEN_BY_TWO_ROLES


NOT_SHOWN = {
    # Errors of the package always have a more precise reason. An extension may use these.
    *(Reason.ERROR, Reason.OTHER, Reason.AS_USER_ID),
    # Commands and the admin print the detail of these errors without the reason.
    *(Reason.KEY_REFUSED, Reason.AUDIT_ALTERED),
    # The log line for a refused gateway contains a sentence instead of a reason.
    Reason.SERVICE_SECRET,
}
GIVEN_BY_TWO_ROLES = {Reason.NO_CREDENTIALS, Reason.MALFORMED_HEADER, Reason.TOO_LONG, Reason.EXPIRED}


class TestTheExamples:
    @pytest.mark.parametrize(
        ("path", "waits"),
        [
            ("examples/nginx/nginx.conf", r"proxy_read_timeout +([0-9]+)s;"),
            ("examples/caddy/Caddyfile", r"response_header_timeout +([0-9]+)s"),
            ("examples/envoy/envoy.yaml", r"(?<!_)timeout: +([0-9]+)s"),
        ],
    )
    def test_wait_for_the_gateway_for_longer_than_it_waits_for_the_issuer(self, path, waits):
        seconds = [int(found) for found in re.findall(waits, (ROOT / path).read_text())]

        assert min(seconds) > fetch.TIMEOUT


class TestTheFigures:
    """`make bench` wrote all three of them."""

    RESULTS = json.loads(report.RESULTS.read_text())

    def test_in_the_readme_are_those_of_the_results(self):
        assert report.BEGIN + report.markdown(self.RESULTS) + report.END in readme.TEXT

    def test_in_the_chart_are_those_of_the_results(self):
        assert report.CHART.read_text() == report.chart(self.RESULTS)


class TestTheChangeLog:
    def test_keeps_a_place_for_what_is_not_released(self):
        text = (ROOT / "CHANGELOG.md").read_text()

        assert re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)[0] == "Unreleased"
        assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= {
            "Added",
            "Changed",
            "Deprecated",
            "Removed",
            "Fixed",
            "Security",
        }
