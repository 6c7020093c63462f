"""Tests that compare the lists in the reference pages and in the README with the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.urls import get_resolver, resolve

from instaccess import tokens, urls
from instaccess.conf import checks as conf_checks
from tests.support import command_reference, readme
from tests.support.paths import ROOT

CHECKS = readme.page("checks.md")
ID = re.compile(r"\b[EW]\d{3}\b")


def ids_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each check id in a module, with the option of `manage.py check` that runs the check.

    If the check runs without an option, the second value is "check".
    A check is a function with the decorator `register`. The ids can also be in the functions that a check calls.
    """
    functions = {each.name: each for each in ast.parse(path.read_text()).body if isinstance(each, ast.FunctionDef)}
    for function in functions.values():
        decorators = [ast.unparse(each) for each in function.decorator_list if "register" in ast.unparse(each)]
        if not decorators:
            continue
        options = decorators[0].partition("(")[2]
        command = "--deploy" if "deploy=True" in options else "--database" if "Tags.database" in options else "check"
        parts = [function]
        for part in parts:
            called = {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}
            parts += [each for name, each in functions.items() if name in called and each not in parts]
        for part in parts:
            code = "".join(ast.unparse(each) for each in ast.walk(part) if isinstance(each, ast.Constant))
            yield from ((found, command) for found in ID.findall(code.replace("instaccess.", " ").replace("'", " ")))


IDS = dict(pair for path in sorted((ROOT / "instaccess").glob("*/checks.py")) for pair in ids_of(path))
SETTINGS = {check_id.removeprefix("instaccess."): name for name, check_id in conf_checks.BAD_SETTING_IDS.items()}


class TestThePageOfChecks:
    TABLES = readme.tables(CHECKS)
    LISTED = {readme.code(row[0])[0].removeprefix("instaccess."): row for table in TABLES for row in table}

    def test_page_of_checks_lists_each_check_id_of_the_app_once(self):
        rows = [row for table in self.TABLES for row in table]

        assert {"E001", "E008", "W003", "W036"} <= set(IDS)
        assert set(self.LISTED) == set(IDS) | set(SETTINGS)
        assert len(rows) == len(self.LISTED)

    @pytest.mark.parametrize("check_id", sorted(set(IDS) - set(SETTINGS)))
    def test_page_of_checks_names_the_command_that_reports_a_check_id(self, check_id):
        assert readme.code(self.LISTED[check_id][3]) == [IDS[check_id]]

    @pytest.mark.parametrize("check_id", sorted(SETTINGS))
    def test_page_of_checks_names_the_setting_that_a_check_id_is_about(self, check_id):
        assert readme.code(self.LISTED[check_id][1]) == [SETTINGS[check_id]]


class TestThePageOfCommands:
    def test_page_of_commands_contains_the_help_texts_of_the_commands(self):
        """If this test fails, run `python -m tests.support.command_reference`."""
        expected = command_reference.BEGIN + command_reference.markdown() + command_reference.END

        assert expected in readme.page("commands.md")

    def test_page_of_commands_describes_each_command_of_the_package(self):
        files = (ROOT / "instaccess/management/commands").glob("instaccess_*.py")

        assert {path.stem for path in files} == set(command_reference.COMMANDS)


class TestThePageOfEndpoints:
    ROWS = readme.tables(readme.section("Paths", readme.page("http.md")))[0]

    def test_page_of_endpoints_lists_every_path_of_the_app(self):
        names = {resolve(readme.code(row[0])[0]).url_name for row in self.ROWS}
        monitoring = {"instaccess-live", "instaccess-ready", "instaccess-metrics"}
        of_roles = {pattern.name for pattern in urls.urlpatterns}

        assert names <= of_roles
        # These names have no separate rows. Each monitoring path has one row for the names of all roles. The second
        # path of the issuing endpoint is in the row of the first path.
        assert of_roles - names <= {
            "instaccess-issue-at-other-path",
            *(f"{name}-{role}" for name in monitoring for role in ("issuer", "gateway", "service")),
        }
        assert get_resolver().url_patterns

    def test_page_of_endpoints_lists_the_methods_of_each_path(self, client):
        for row in self.ROWS:
            [path, *_], methods = readme.code(row[0]), readme.code(row[1])
            if methods:
                assert sorted(client.delete(path).headers["Allow"].split(", ")) == sorted(methods), path


class TestThePageOfServices:
    def test_page_of_services_lists_each_attribute_with_its_claim(self):
        [rows] = readme.tables(readme.section("The user and the claims", readme.page("services.md")))
        documented = {readme.code(claim)[0]: readme.code(name)[0] for name, claim, _ in rows if readme.code(claim)}

        assert documented == tokens.ATTRIBUTES
        assert [readme.code(row[0]) for row in rows if not readme.code(row[1])] == [["extra"]]


class TestTheReadme:
    def test_readme_has_at_most_150_lines(self):
        assert len(readme.TEXT.splitlines()) <= 150

    def test_steps_in_the_readme_are_the_steps_of_the_installation_page(self):
        steps = readme.snippets(readme.section("Add the app to your project"))
        documented = readme.snippets(readme.section("Installation", readme.page("installation.md")))

        assert steps == documented[: len(steps)]
        assert len(steps) == 4


class TestCoverageOfTheDocumentation:
    TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != "readme.py")

    @pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
    def test_commands_and_code_on_each_page_are_covered_by_a_test(self, path):
        languages = {snippet.language for snippet in readme.snippets(path.read_text())}

        assert not languages & {"sh", "python"} or path.name in readme.GUIDES or f'"{path.name}"' in self.TESTS
