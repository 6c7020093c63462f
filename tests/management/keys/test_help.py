"""Tests of `manage.py instaccess_keys --help`, and of the parsing of arguments."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.management import load_command_class

from tests.management.keys.helpers import error_of
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db

SUBCOMMANDS = ["list", "generate", "import", "export", "rotate", "activate", "revoke", "reseal", "after-restore"]


class TestHelpOfInstaccessKeys:
    def help_of(self, capsys: Any, *args: str) -> str:
        parser = load_command_class("instaccess", "instaccess_keys").create_parser("manage.py", "instaccess_keys")
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([*args, "--help"])
        assert ended.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    def test_help_of_instaccess_keys_lists_every_subcommand(self, capsys):
        text = self.help_of(capsys)

        for name in SUBCOMMANDS:
            assert f" {name} " in text

    @pytest.mark.parametrize(
        ("subcommand", "words"),
        [
            ("list", "its next step"),
            ("generate", "Generate an additional future key"),
            ("import", "A private key is refused without --with-private"),
            ("export", "Print a public key, or the private key with --private"),
            ("rotate", "The exit code is 0 even if nothing was due"),
            ("activate", "The previous key becomes past"),
            ("revoke", "A revocation can't be undone"),
            ("reseal", "If the command was interrupted, run the command again"),
            ("after-restore", "every gateway refuses all tokens issued so far"),
        ],
    )
    def test_help_of_each_instaccess_keys_subcommand_describes_its_effect(self, subcommand, words, capsys):
        assert words in self.help_of(capsys, subcommand)

    @pytest.mark.parametrize("subcommand", SUBCOMMANDS)
    def test_every_option_of_instaccess_keys_has_a_help_text(self, subcommand, capsys):
        parser = load_command_class("instaccess", "instaccess_keys").create_parser("manage.py", "instaccess_keys")
        choices = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices

        for action in choices[subcommand]._actions:
            assert action.help, action.option_strings

    def test_instaccess_keys_without_a_subcommand_fails_and_lists_the_subcommands(self, tmp_path):
        done = subprocess.run(
            [sys.executable, "manage.py", "instaccess_keys"], cwd=ROOT, capture_output=True, text=True, check=False
        )

        assert done.returncode == 2
        assert "{" + ",".join(SUBCOMMANDS) + "}" in done.stderr.replace("\n", "").replace(" ", "")

    @pytest.mark.parametrize("subcommand", ["list", "rotate"])
    @pytest.mark.parametrize(
        "option",
        [["-v", "2"], ["--verbosity=0"], ["--traceback"], ["--no-color"], ["--force-color"], ["--skip-checks"]],
        ids=" ".join,
    )
    def test_instaccess_keys_accepts_djangos_common_options_before_and_after_a_subcommand(self, subcommand, option):
        parser = load_command_class("instaccess", "instaccess_keys").create_parser("manage.py", "instaccess_keys")

        assert parser.parse_args([*option, subcommand]) == parser.parse_args([subcommand, *option])
        assert parser.parse_args([*option, subcommand]) != parser.parse_args([subcommand])

    def test_instaccess_keys_accepts_settings_and_pythonpath_after_a_subcommand(self, tmp_path):
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        words = ["instaccess_keys", "list", "--settings", "testproject.settings", "--pythonpath"]
        done = subprocess.run(
            [sys.executable, "-m", "django", *words, ROOT],
            cwd=tmp_path,
            env=environment | {"INSTACCESS_DATABASE": "sqlite", "SQLITE_NAME": str(tmp_path / "empty.sqlite3")},
            capture_output=True,
            text=True,
            check=False,
        )

        assert "no such table" in done.stderr

    @pytest.mark.parametrize(
        "args", [[], ["destroy"], ["generate"], ["import", "--use", "sig"], ["export"], ["rotate", "--use", "both"]]
    )
    def test_instaccess_keys_fails_for_missing_or_invalid_arguments(self, args):
        assert error_of(*args).startswith("Error: ")


class TestAKeyIdThatBeginsWithADash:
    @pytest.mark.parametrize("kid", ["-hJ2c", "--json", "--kid", "-_" + "x" * 41])
    @pytest.mark.parametrize("subcommand", ["export", "activate", "revoke"])
    def test_instaccess_keys_reads_a_key_id_that_begins_with_a_dash_as_the_value_of_kid(self, subcommand, kid):
        assert repr(kid) in error_of(subcommand, "--kid", kid)

    def test_instaccess_keys_fails_if_no_key_id_follows_the_option_kid(self):
        assert "expected one argument" in error_of("revoke", "--kid")
