"""Tests of case O19: every command prints its output on an ASCII terminal, even if a name contains an umlaut."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys

import pytest
from django.contrib.auth import get_user_model
from django.core.management import load_command_class

from instaccess import audit, keys, users
from instaccess.management import base
from instaccess.models import IssuedToken, Key
from tests.support.commands import END
from tests.support.paths import ROOT
from tests.support.processes import environment

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "Müller 😱"
ESCAPED = "M\\xfcller \\U0001f631"
COMMANDS = ("instaccess_init", "instaccess_keys", "instaccess_tokens")


def subcommands(command):
    """Return the subcommands of a command, or `[None]` if the command has no subcommands."""
    parser = load_command_class("instaccess", command).create_parser("manage.py", command)
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [name for action in actions for name in action.choices] or [None]


ALL = [(command, name) for command in COMMANDS for name in subcommands(command)]


def run(*commands, encoding="ascii"):
    """Run commands that print with the given encoding. Returns the exit code, stdout and stderr of each command."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.commands", json.dumps(commands)],
        env={**environment(), "PYTHONIOENCODING": encoding},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = []
    for out, err in zip(*(split(stream.decode(encoding)) for stream in (done.stdout, done.stderr)), strict=True):
        outputs.append((out[0], out[1], err[1]))
    assert len(outputs) == len(commands)
    return outputs


def split(text):
    """Split the output of several commands. Returns the exit code and the output of each command."""
    parts = text.split(END)
    texts = [parts[0], *(part.partition("\n")[2] for part in parts[1:])]
    return [(part.partition("\n")[0], text) for part, text in zip(parts[1:], texts, strict=False)]


@pytest.fixture
def project(initial_keys, row, tmp_path):
    """Create a user called Müller with tokens, a reviewed incident with an umlaut, and a checkpoint.

    Returns the arguments with which the tests run each command.
    """
    mueller = get_user_model().objects.create_user(NAME)
    rows = [row(user=mueller, user_uuid=users.user_uuid(mueller), age=age) for age in (7200, 7100, 0, 0)]
    IssuedToken.objects.filter(pk=rows[0].pk).update(ip_address="192.0.2.99")
    audit.seal(keys.evidence_keys())
    problems = audit.verify(keys.evidence_keys()).problems
    audit.record_review(problems, keys.evidence_keys(), by=NAME, reason=f"{NAME} was here")
    IssuedToken.objects.filter(pk=rows[1].pk).update(ip_address="192.0.2.99")
    future = Key.objects.get(status=Key.Status.FUTURE)
    [code] = [problem.code for problem in audit.verify(keys.evidence_keys()).problems]
    pem = tmp_path / "ü.pem"
    pem.write_text("no key")
    return {
        ("instaccess_init", None): [],
        ("instaccess_keys", "list"): ["list"],
        ("instaccess_keys", "generate"): ["generate", "--use", "sig"],
        ("instaccess_keys", "import"): ["import", "--use", "enc", "--file", str(pem)],
        ("instaccess_keys", "export"): ["export", "--kid", future.kid, "--file", str(tmp_path / "ö.pem")],
        ("instaccess_keys", "rotate"): ["rotate"],
        ("instaccess_keys", "activate"): ["activate", "--kid", f"ü{future.kid}"],
        ("instaccess_keys", "revoke"): ["revoke", "--kid", future.kid, "--reason", NAME],
        ("instaccess_keys", "reseal"): ["reseal"],
        ("instaccess_keys", "after-restore"): ["after-restore", "--reason", NAME, "--yes"],
        ("instaccess_tokens", "list"): ["list", "--user", NAME],
        ("instaccess_tokens", "show"): ["show", "--jti", str(rows[2].jti)],
        ("instaccess_tokens", "revoke"): ["revoke", "--user", NAME, "--reason", NAME],
        ("instaccess_tokens", "erase-name"): ["erase-name", "--user", "Mühler"],
        ("instaccess_tokens", "export"): ["export", "--format", "csv", "--file", str(tmp_path / "ü.csv")],
        ("instaccess_tokens", "seal"): ["seal"],
        ("instaccess_tokens", "checkpoint"): ["checkpoint", "--file", str(tmp_path / "ä.json")],
        ("instaccess_tokens", "verify"): ["verify"],
        ("instaccess_tokens", "review"): ["review", code, "--reason", NAME],
        ("instaccess_tokens", "prune"): ["prune", "--older-than", "ä"],
    }


class TestAnASCIITerminal:
    def test_o19_every_command_prints_its_result_or_its_error_on_an_ascii_terminal(self, project):
        assert set(project) == set(ALL)

        outputs = dict(zip(ALL, run(*([name, *project[name, sub]] for name, sub in ALL)), strict=True))

        texts = {key: out + err for key, (_, out, err) in outputs.items()}
        assert [key for key, text in texts.items() if "Traceback" in text or "Unicode" in text] == []
        assert [key for key, text in texts.items() if not text.strip()] == []
        assert ESCAPED in texts["instaccess_tokens", "list"]
        assert ESCAPED in texts["instaccess_tokens", "show"]
        assert f"{ESCAPED} was here" in texts["instaccess_tokens", "verify"]
        assert "M\\xfchler" in texts["instaccess_tokens", "erase-name"]
        failed = {key for key, (code, *_) in outputs.items() if code != "0"}
        assert failed <= {
            *(("instaccess_keys", "import"), ("instaccess_keys", "activate")),
            *(("instaccess_tokens", name) for name in ("erase-name", "verify", "seal", "prune")),
        }

    def test_o19_every_command_prints_its_help_text_on_an_ascii_terminal(self):
        outputs = run(*([name, *filter(None, [sub]), "--help"] for name, sub in ALL))

        assert [code for code, *_ in outputs] == ["0"] * len(ALL)

    def test_tokens_list_on_a_utf_8_terminal_prints_the_unescaped_name_and_valid_json(self, project):
        listing = ["instaccess_tokens", "list", "--user", NAME]
        [(_, text, _), (_, document, _)] = run(listing, [*listing, "--json"], encoding="utf-8")

        assert NAME in text
        assert json.loads(document)[0]["user_name"] == NAME


class TestEscaping:
    def test_escaping_restores_the_error_handler_of_a_stream(self):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")

        with base.escaping(stream):
            stream.write("ü")
        stream.flush()

        assert (stream.buffer.getvalue(), stream.errors) == (b"\\xfc", "strict")

    def test_escaping_keeps_the_error_handler_of_a_stream_that_is_not_strict(self):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")

        with base.escaping(stream):
            assert stream.errors == "replace"

    def test_escaping_does_not_change_a_stream_without_an_encoding(self):
        with base.escaping(io.StringIO()) as nothing:
            assert nothing is None
