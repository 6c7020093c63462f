"""Tests that compare the examples, lists and names in the README and in `docs/` with the code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.apps import apps
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.test import override_settings
from django.urls import resolve

import instaccess
from benchmarks import report, report_nginx
from instaccess import issuer, keys, tokens
from instaccess.conf import SCOPE, SETTINGS, conf
from instaccess.conf import checks as conf_checks
from instaccess.exceptions import Reason
from instaccess.trust import fetch
from instaccess.web import answers as web_answers
from tests import test_layering
from tests.support import key_texts, readme
from tests.support.paths import ROOT

PACKAGE = ROOT / "instaccess"
ADMIN_PAGES = ("admin.md", "audit-log.md", "stolen-laptop.md", "compromised-key.md", "keys.md")
SOURCE = "\n".join(path.read_text() for kind in ("*.py", "*.html") for path in sorted(PACKAGE.rglob(kind)))
GUIDES = readme.guides()
SHELL = sorted({line for each in readme.snippets(GUIDES) if each.language == "sh" for line in each.lines})
OPENSSL = [
    line for each in readme.snippets(readme.page("keys.md")) for line in each.lines if line.startswith("openssl ")
]
PYTHON = sorted({snippet.code for snippet in readme.snippets(GUIDES) if snippet.language == "python"})
JSON = [snippet.code for snippet in readme.snippets(GUIDES) if snippet.language == "json"]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


class TestTheTableOfSettings:
    ROWS = {readme.code(name)[0]: default for name, _, default, _ in readme.tables(readme.page("settings.md"))[0]}

    def test_table_of_settings_has_one_row_for_each_setting(self):
        assert set(self.ROWS) == set(SETTINGS)

    def test_each_setting_in_the_table_has_a_check_id(self):
        assert set(conf_checks.BAD_SETTING_IDS) == set(SETTINGS)
        assert len(set(conf_checks.BAD_SETTING_IDS.values())) == len(SETTINGS)

    @pytest.mark.parametrize("name", ROWS)
    def test_table_of_settings_shows_the_default_value(self, name):
        documented = ast.literal_eval(readme.code(self.ROWS[name])[0])
        with override_settings(INSTACCESS={}):
            default = getattr(conf, SETTINGS[name])

        with override_settings(INSTACCESS={name: documented}):
            assert getattr(conf, SETTINGS[name]) == default


class TestTheTableOfPermissions:
    def test_table_of_permissions_lists_every_permission_of_the_app(self):
        [rows] = [rows for rows in readme.tables(readme.page("admin.md")) if "`view_key`" in rows[3][0]]
        options = [model._meta for model in apps.get_app_config("instaccess").get_models()]
        custom = {codename for meta in options for codename, _ in meta.permissions}
        default = {f"{action}_{meta.model_name}" for meta in options for action in meta.default_permissions}

        listed = [codename for row in rows for codename in readme.code(row[0])]
        assert sorted(listed) == sorted(custom | default)


class TestDocumentedCodeBlocks:
    def test_documented_code_blocks_have_a_language_that_the_tests_cover(self):
        assert {snippet.language for snippet in readme.snippets(GUIDES)} <= {"sh", "python", "json", "text"}

    @pytest.mark.parametrize("code", [code for code in PYTHON if "INSTACCESS =" in code])
    def test_documented_settings_pass_the_system_checks(self, code, monkeypatch):
        monkeypatch.setenv("INSTACCESS_KEK", "A" * 43)
        monkeypatch.setenv("INSTACCESS_SERVICE_SECRET", "s" * 43)
        names: dict[str, object] = {}

        exec(code, names)

        with override_settings(INSTACCESS=names["INSTACCESS"]):
            assert conf_checks.check_settings() == []

    @pytest.mark.parametrize("code", PYTHON)
    def test_documented_python_code_is_settings_or_installation_steps_or_runs_in_a_test(self, code):
        """Accept the installation steps without running them, because test_packaging.py runs them."""
        ast.parse(code)
        run_here = "INSTACCESS =" in code or "def post_worker_init" in code or code.startswith("LOGGING =")
        assert run_here or code in readme.page("installation.md")

    def test_documented_logging_settings_log_issued_tokens(self):
        # Skip the settings for JSON, which test_logs.py tests.
        [code] = [code for code in PYTHON if code.startswith("LOGGING =") and "pythonjsonlogger" not in code]
        script = (
            f"{code}\nfrom django.conf import settings\nsettings.configure(LOGGING=LOGGING)\nimport django, logging\n"
            "django.setup()\nlogging.getLogger('instaccess.issuer').info('issued')"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

        assert done.stderr == "issued\n"

    @pytest.mark.django_db(transaction=True)
    def test_documented_gunicorn_hook_loads_the_current_private_keys(self, initial_keys):
        [code] = [code for code in PYTHON if "def post_worker_init" in code]
        names: dict[str, Any] = {}
        exec(code, names)

        names["post_worker_init"](object())

        assert all(key._private for key in keys.current_ring().keys if key.status == "current")

    @pytest.mark.parametrize("code", JSON)
    def test_documented_claims_are_the_claims_of_an_issued_token(self, code, initial_keys, user):
        origin = issuer.Origin(canvas_domain="canvas.example.edu")
        _, text = issuer.issue(user=user, origin=origin, now=1795448096, encrypted=False)
        payload, _ = tokens.verify(text, keys.current_ring().verification_keys())

        documented = json.loads(code)
        assert list(documented) == list(payload)
        assert documented["exp"] - documented["iat"] == payload["exp"] - payload["iat"]
        for claim in ("iss", "iat", "acct", "canvas_domain"):
            assert type(documented[claim]) is type(payload[claim])

    @pytest.mark.parametrize("line", SHELL)
    def test_documented_shell_commands_exist(self, line):
        words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z]+=\w+", word)]
        match words:
            case ["make", *targets]:
                assert set(targets) <= make_targets()
            case ["python" | ".venv/bin/python", "manage.py", command, *arguments]:
                app = get_commands()[command]
                loaded = load_command_class(app, command) if isinstance(app, str) else app
                # This call exits with an error if an argument is invalid.
                loaded.create_parser("manage.py", command).parse_args(arguments)
            case ["curl", "-X", method, "-H", header, url]:
                assert resolve(urlsplit(url).path).url_name == "instaccess-issue"
                assert method == "POST"
                assert header.startswith("Authorization: Bearer ")
            case ["python", "-c", code]:
                ast.parse(code)
            case ["openssl", *_]:
                assert line in OPENSSL  # The next test runs all commands in OPENSSL.
            case ["python", "-m", "pip", "install", package]:
                assert package == "django-instaccess"  # test_packaging.py tests the installation of this package.
            case _:
                pytest.fail(f"nothing tests `{line}`")

    def test_documented_openssl_commands_generate_a_key_pair_for_gateway_and_issuer(self, tmp_path):
        for line in OPENSSL:
            subprocess.run(shlex.split(line), cwd=tmp_path, check=True, capture_output=True)

        private = key_texts.parse((tmp_path / "gateway.pem").read_bytes())
        public = key_texts.parse((tmp_path / "gateway.pub.pem").read_bytes())
        assert (private.has_private, public.has_private) == (True, False)
        assert private.thumbprint() == public.thumbprint()

    def test_documented_command_prints_a_valid_key_encryption_key(self, capsys):
        line = next(line for line in SHELL if line.startswith("python -c"))

        exec(shlex.split(line)[2])

        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [capsys.readouterr().out.strip()]}):
            assert len(conf.key_encryption_keys) == 1


class TestNamesInTheDocumentation:
    def test_make_targets_that_a_guide_names_exist(self):
        named = set(re.findall(r"`(?:[A-Z]+=\S+ )?make ([a-z-]+)`", GUIDES))

        assert {"demo", "wheel"} <= named <= make_targets()

    def test_management_commands_that_a_guide_names_exist(self):
        named = set(re.findall(r"manage\.py (\w+)|`(instaccess_(?:init|keys|tokens))`", GUIDES))

        assert {left or right for left, right in named} <= set(get_commands())

    def test_command_options_that_a_guide_names_exist(self):
        for command, option in re.findall(r"manage\.py (\w+) (--[a-z-]+)", GUIDES):
            app = get_commands()[command]
            loaded = load_command_class(app, command) if isinstance(app, str) else app
            assert isinstance(loaded, BaseCommand)
            assert option in loaded.create_parser("manage.py", command).format_help()

    def test_check_ids_that_a_guide_names_exist(self):
        source = "".join(path.read_text() for path in PACKAGE.glob("*/checks.py"))
        for check_id in re.findall(r"`instaccess\.([EW]\d{3})`", GUIDES):
            assert check_id in source

    @pytest.mark.parametrize("path", readme.DOCUMENTS, ids=lambda path: path.name)
    def test_documentation_page_links_only_to_existing_files_and_headings(self, path):
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            if target.startswith("https://"):
                continue
            name, _, anchor = target.partition("#")
            linked = (path.parent / name).resolve() if name else path
            assert linked.exists(), target
            assert not anchor or anchor in readme.heading_anchors(linked), target

    @pytest.mark.parametrize("path", readme.DOCUMENTS, ids=lambda path: path.name)
    def test_pages_that_another_documentation_page_names_exist(self, path):
        pages = {existing.name for existing in readme.DOCUMENTS}

        assert set(re.findall(r"[\w-]+\.md\b", path.read_text())) <= pages

    def test_admin_texts_that_a_guide_quotes_exist(self):
        prose = re.sub(r"```.*?```", "", "".join(map(readme.page, ADMIN_PAGES)), flags=re.DOTALL)
        text = " ".join(prose.split())
        quoted = re.findall(r'"([A-Z][^"`]+)"', text)

        assert {"Actor", "Import key…"} <= set(quoted)
        assert [label for label in quoted if label.lower() not in SOURCE.lower()] == []

    def test_messages_that_a_guide_quotes_exist(self):
        prose = re.sub(r"```.*?```", "", GUIDES, flags=re.DOTALL)
        messages = {text for text in readme.code(prose) if re.match(r"[A-Z][a-zA-Z]+:? .*\b(N|KEY_ID)\b", text)}

        assert len(messages) == 6
        for message in messages:
            for part in re.split(r"\b(?:N|KEY_ID|current signing)\b", message):
                assert part.strip() in SOURCE, message

    def test_page_about_logs_lists_every_logger_of_the_app(self):
        loggers = set(re.findall(r'get_logger\("(instaccess\.\w+)"\)', SOURCE))
        [rows] = [rows for rows in readme.tables(readme.page("logging.md")) if "`instaccess.issuer`" in rows[0][0]]

        assert {name for row in rows for name in readme.code(row[0])} == loggers

    def test_scope_in_the_guides_is_the_issuing_scope(self):
        assert set(re.findall(r"url:[A-Z]+\\?\|[\w/]+", GUIDES)) == {SCOPE, SCOPE.replace("|", "\\|")}


class TestTheTablesOfRefusals:
    def test_tables_of_refusals_contain_the_exact_response_for_each_refusal(self):
        documented = {
            (int(status), readme.code(body)[0], header == "yes")
            for _, status, body, header in readme.tables(readme.section("Request a token", readme.page("http.md")))[0]
            if status not in {"201", "429"}
        }
        refusals = [
            kind
            for kind in vars(web_answers).values()
            if isinstance(kind, type) and kind.__module__ == web_answers.__name__
        ]

        expired = web_answers.ExpiredAccessToken(expired_at=datetime(2026, 11, 26, 18, tzinfo=UTC))
        special = {web_answers.Refusal, web_answers.Throttled, web_answers.ExpiredAccessToken}
        fixed = [kind for kind in refusals if issubclass(kind, web_answers.Refusal) and kind not in special]
        answers = {
            (refusal.status, json.dumps(refusal.body, separators=(",", ":")), refusal.challenge)
            for refusal in (*fixed, expired)
        }
        for status, text in web_answers.THROTTLED.items():
            assert f"`{text.strip()}`" in readme.page("http.md"), status
        assert documented == answers

    def test_tables_of_refusals_contain_each_reason_that_a_log_or_a_chart_can_show(self):
        by_the_issuer, by_readers, problems = readme.tables(readme.page("reasons.md"))
        of_the_issuer, of_readers = (
            [reason for row in rows for reason in readme.code(row[0])] for rows in (by_the_issuer, by_readers)
        )
        failures = {word for row in problems for word in readme.code(row[0])} & set(Reason)

        assert len(of_the_issuer) == len(set(of_the_issuer))
        assert len(of_readers) == len(set(of_readers))
        assert not failures & {*of_the_issuer, *of_readers}
        assert {*of_the_issuer, *of_readers} | failures == set(Reason) - NOT_SHOWN

    def test_tables_of_refusals_contain_a_reason_twice_only_if_two_roles_give_the_reason(self):
        by_the_issuer, by_readers, _ = readme.tables(readme.page("reasons.md"))
        of_the_issuer, of_readers = (
            {reason for row in rows for reason in readme.code(row[0])} for rows in (by_the_issuer, by_readers)
        )

        assert of_the_issuer & of_readers == GIVEN_BY_TWO_ROLES


NOT_SHOWN = {
    # This package always logs a more precise reason. Extensions can use these codes.
    *(Reason.ERROR, Reason.OTHER, Reason.AS_USER_ID),
    # Commands and the admin print the detail of this error without the reason.
    Reason.AUDIT_ALTERED,
    # The log line for a refused gateway contains a sentence instead of a reason.
    Reason.SERVICE_SECRET,
}
GIVEN_BY_TWO_ROLES = {Reason.NO_CREDENTIALS, Reason.MALFORMED_HEADER, Reason.TOO_LONG, Reason.EXPIRED}


class TestTheExampleConfigurations:
    @pytest.mark.usefixtures("real_fetch_limits")
    @pytest.mark.parametrize(
        ("path", "waits"),
        [
            ("examples/nginx/nginx.conf", r"proxy_read_timeout +([0-9]+)s;"),
            ("examples/caddy/Caddyfile", r"response_header_timeout +([0-9]+)s"),
            ("examples/envoy/envoy.yaml", r"(?<!_)timeout: +([0-9]+)s"),
        ],
    )
    def test_example_configurations_wait_longer_for_the_gateway_than_the_gateway_waits_for_the_issuer(
        self, path, waits
    ):
        seconds = [int(number) for number in re.findall(waits, (ROOT / path).read_text())]

        assert min(seconds) > fetch.TIMEOUT


class TestTheBenchmarkFigures:
    """Tests that the tables and the charts in the documentation match the stored results of the benchmarks."""

    RESULTS = json.loads(report.RESULTS.read_text())

    def test_benchmark_figures_on_the_page_of_speed_match_the_results(self):
        assert report.BEGIN + report.markdown(self.RESULTS) + report.END in readme.page("speed.md")

    def test_benchmark_figures_in_the_chart_match_the_results(self):
        assert report.CHART.read_text() == report.chart(self.RESULTS)

    def test_benchmark_figures_of_the_gateway_with_nginx_match_the_results(self):
        table = report_nginx.BEGIN + report_nginx.markdown(self.RESULTS) + report_nginx.END

        assert table in readme.page("proxies.md")
        assert report_nginx.CHART.read_text() == report_nginx.chart(self.RESULTS)


class TestTheChangelog:
    def test_changelog_begins_with_the_version_of_the_package_under_standard_headings(self):
        text = (ROOT / "CHANGELOG.md").read_text()

        headings = re.findall(r"^## \[(.+?)\] - (Unreleased|\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
        assert len(headings) == len(re.findall(r"^## ", text, re.MULTILINE))
        assert headings[0][0] == instaccess.__version__
        assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= {
            "Added",
            "Changed",
            "Deprecated",
            "Removed",
            "Fixed",
            "Security",
        }


class TestTheArchitecturePage:
    TEXT = readme.page("architecture.md")
    PATHS = sorted(
        {text for text in readme.code(TEXT) if re.fullmatch(r"(instaccess|tests|docs|testproject)/\S+", text)}
    )

    @pytest.mark.parametrize("path", PATHS)
    def test_paths_on_the_architecture_page_exist(self, path):
        assert (ROOT / path).exists()

    def test_architecture_page_lists_every_wing_and_only_existing_modules_outside_the_wings(self):
        wings, modules = (
            {readme.code(row[0])[0] for row in table} for table in readme.tables(readme.section("Wings", self.TEXT))
        )

        assert wings == {
            f"instaccess/{path.parent.name}/"
            for path in PACKAGE.glob("*/__init__.py")
            if path.parent.name != "migrations"
        }
        assert modules <= {f"instaccess/{path.name}" for path in PACKAGE.glob("*.py")}

    def test_architecture_page_describes_each_wing_as_its_docstring_does(self):
        for wing, task, _ in readme.tables(readme.section("Wings", self.TEXT))[0]:
            docstring = ast.get_docstring(ast.parse((ROOT / readme.code(wing)[0] / "__init__.py").read_text())) or ""
            assert task.startswith(" ".join(docstring.partition("\n\n")[0].split())), wing

    def test_architecture_page_shows_the_order_of_imports_that_the_tests_enforce(self):
        [order] = readme.snippets(readme.section("Rule for imports", self.TEXT))

        assert re.findall(r"\w+", order.code) == test_layering.ORDER


class TestThePageOfCases:
    TEXT = readme.page("cases.md")
    CASES = {row[0]: readme.code(row[3]) for table in readme.tables(TEXT) for row in table if len(row) == 4}
    OPEN = {row[0] for table in readme.tables(TEXT) for row in table if len(row) == 3}

    @staticmethod
    def ids_in(path: Path) -> set[str]:
        """Return the case ids at the start of the test names in a file."""
        prefixes = re.findall(r"def test_((?:[acgkop]\d+_)+)", path.read_text())
        return {case.upper() for prefix in prefixes for case in prefix.rstrip("_").split("_")}

    @classmethod
    @cache
    def ids_by_file(cls) -> dict[Path, set[str]]:
        return {path: cls.ids_in(path) for path in (ROOT / "tests").rglob("test_*.py")}

    @pytest.mark.parametrize("case", CASES)
    def test_page_of_cases_names_exactly_the_files_that_test_the_case(self, case):
        files = {path.relative_to(ROOT).as_posix() for path, ids in self.ids_by_file().items() if case in ids}

        assert files
        assert set(self.CASES[case]) == files

    def test_page_of_cases_lists_every_case_that_a_test_name_contains(self):
        ids = set().union(*self.ids_by_file().values())

        assert ids <= set(self.CASES)

    def test_page_of_cases_lists_a_case_as_open_only_if_no_test_name_contains_its_id(self):
        assert not self.OPEN & set(self.CASES)

    def test_page_of_cases_gives_an_input_and_a_promise_for_every_case(self):
        for table in readme.tables(self.TEXT):
            for row in table:
                assert all(cell.endswith(".") for cell in row[1:3])
