"""Tests of CONTRIBUTING.md, SECURITY.md and CODE_OF_CONDUCT.md: the files, names and commands in them exist."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from urllib.parse import urlsplit

import pytest

from tests.support import readme
from tests.support.paths import ROOT

PAPERS = {name: (ROOT / name).read_text() for name in ("CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")}
CONTRIBUTING = PAPERS["CONTRIBUTING.md"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
CODE = sorted({code for text in PAPERS.values() for code in re.findall(r"`([^`\n]+)`", text)})
PATHS = [code for code in CODE if re.fullmatch(r"[\w./]+(\.py|\.md|\.cfg|/)", code) and "/" in code]
PYTEST = [code for code in CODE if code.startswith(".venv/bin/python -m pytest")]


class TestTheNamesInTheCommunityFiles:
    @pytest.mark.parametrize("path", PATHS)
    def test_file_that_a_community_file_names_exists(self, path):
        assert (ROOT / path).exists()

    @pytest.mark.parametrize("command", [code for code in CODE if code.startswith("make ")])
    def test_command_that_a_community_file_names_is_a_target_of_the_makefile(self, command):
        assert command.removeprefix("make ") in TARGETS

    def test_contributors_set_up_the_project_with_two_commands(self):
        [code] = [each for each in readme.snippets(CONTRIBUTING) if each.language == "sh"]

        assert code.lines == ["make demo", "make test"]
        assert code in readme.snippets(readme.TEXT)

    @pytest.mark.parametrize("command", PYTEST)
    def test_documented_selection_of_tests_contains_existing_files(self, command):
        paths = command.split()[3:]

        assert paths
        assert [path for path in paths if not (ROOT / path).exists()] == []

    @pytest.mark.parametrize(
        ("name", "module"),
        [
            ("BAD_SETTING_IDS", "instaccess.conf.checks"),
            ("Reason", "instaccess.exceptions"),
            ("TABLE", "tests.conf.test_settings"),
            ("SAME_IN_ENGLISH", "tests.test_locale"),
        ],
    )
    def test_contributors_find_each_name_in_the_documented_module(self, name, module):
        assert f"`{name}` in `{module.replace('.', '/')}.py`" in " ".join(CONTRIBUTING.split())
        assert hasattr(import_module(module), name)

    def test_documented_command_for_a_migration_accepts_its_arguments(self):
        [command] = [code for code in CODE if "makemigrations" in code]
        arguments = command.removeprefix(".venv/bin/python ").split()
        done = subprocess.run(
            [sys.executable, *arguments, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
        )

        assert "No changes detected" in done.stdout, done.stderr


class TestTheCommunityFilesOfAProjectWithoutAnAddress:
    @pytest.mark.parametrize("name", PAPERS)
    def test_community_file_contains_no_address_except_the_address_of_the_contributor_covenant(self, name):
        hosts = {urlsplit(url).hostname for url in re.findall(r"https?://[^\s)>]+", PAPERS[name])}

        assert hosts <= {"www.contributor-covenant.org"}
        assert re.findall(r"\S+@\S+", PAPERS[name]) == []

    def test_source_distribution_includes_the_community_files(self):
        included = re.findall(r"^include (.+)$", (ROOT / "MANIFEST.in").read_text(), re.MULTILINE)

        assert set(PAPERS) <= set(" ".join(included).split())


class TestTheReleases:
    def test_security_policy_and_change_log_name_the_same_unreleased_version(self):
        unreleased = re.findall(r"^## \[(.+?)\] - Unreleased$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
        named = re.findall(r"Version (\S+) has not been released yet", PAPERS["SECURITY.md"])

        assert named == [version for version in unreleased if version == "0.1.0"]
