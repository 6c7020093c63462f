"""Tests that a database failure in any management command reveals no secret in a report, a log or the output."""

from __future__ import annotations

import argparse
import io
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, load_command_class

from instaccess.management import commands
from instaccess.models import IssuedToken, Key

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("deployment")]


class Server:
    """A server that runs commands, with the rows and files that the arguments of the commands contain."""

    def __init__(self, settings: Any, pair: Any, path: Path, old: IssuedToken) -> None:
        self.settings, self.old, self.exported = settings, old, path / "exported.pem"
        self.signing = Key.objects.get(use="sig", status="current").kid
        self.future = Key.objects.get(use="enc", status="future").kid
        self.private = path / "private.pem"
        self.private.write_bytes(pair.export_to_pem(private_key=True, password=None))

    def run(self, *args: Any) -> str:
        self.exported.unlink(missing_ok=True)
        out = io.StringIO()
        call_command(*map(str, args), stdout=out)
        return out.getvalue()

    def run_without_output(self, *args: Any) -> str:
        """Run a command that intentionally prints a private key. Returns an empty string instead of the output."""
        self.run(*args)
        return ""

    def reseal(self) -> str:
        """Run `instaccess_keys reseal` after moving the last key-encryption key to the first place."""
        keks = self.settings.INSTACCESS["KEY_ENCRYPTION_KEYS"]
        self.settings.INSTACCESS = {**self.settings.INSTACCESS, "KEY_ENCRYPTION_KEYS": [keks[-1], *keks[:-1]]}
        try:
            return self.run("instaccess_keys", "reseal")
        finally:
            self.settings.INSTACCESS = {**self.settings.INSTACCESS, "KEY_ENCRYPTION_KEYS": keks}


@pytest.fixture
def server(settings: Any, rsa_pool: Any, tmp_path: Path, row: Callable[..., IssuedToken]) -> Server:
    row()
    return Server(settings, rsa_pool.take(), tmp_path, row(age=3 * 86_400))


KEYS, TOKENS = "instaccess_keys", "instaccess_tokens"

RUNS: dict[tuple[str, str], dict[str, Callable[[Server], str]]] = {
    ("instaccess_init", ""): {
        "complete": lambda server: server.run("instaccess_init"),
        "missing": lambda server: Key.objects.filter(use="sig").delete() and server.run("instaccess_init"),
    },
    (KEYS, "list"): {"": lambda server: server.run(KEYS, "list")},
    (KEYS, "generate"): {"": lambda server: server.run(KEYS, "generate", "--use", "sig")},
    (KEYS, "import"): {
        "": lambda server: server.run(KEYS, "import", "--use", "sig", "--with-private", "--file", server.private),
        "refused": lambda server: server.run(KEYS, "import", "--use", "sig", "--file", server.private),
    },
    (KEYS, "export"): {
        "public": lambda server: server.run(KEYS, "export", "--kid", server.signing),
        "printed": lambda server: server.run_without_output(
            KEYS, "export", "--kid", server.signing, "--private", "--yes"
        ),
        "file": lambda server: server.run(
            KEYS, "export", "--kid", server.signing, "--private", "--format", "jwk", "--file", server.exported
        ),
    },
    (KEYS, "rotate"): {
        "not due": lambda server: server.run(KEYS, "rotate"),
        "forced": lambda server: server.run(KEYS, "rotate", "--force"),
    },
    (KEYS, "activate"): {"": lambda server: server.run(KEYS, "activate", "--kid", server.future, "--force")},
    (KEYS, "revoke"): {"": lambda server: server.run(KEYS, "revoke", "--kid", server.signing)},
    (KEYS, "reseal"): {"": lambda server: server.reseal()},
    (KEYS, "after-restore"): {"": lambda server: server.run(KEYS, "after-restore", "--yes")},
    (TOKENS, "list"): {"": lambda server: server.run(TOKENS, "list")},
    (TOKENS, "show"): {"": lambda server: server.run(TOKENS, "show", "--jti", server.old.jti)},
    (TOKENS, "export"): {"": lambda server: server.run(TOKENS, "export", "--format", "csv")},
    (TOKENS, "revoke"): {"": lambda server: server.run(TOKENS, "revoke", "--user", "ada", "--reason", "lost")},
    (TOKENS, "seal"): {"": lambda server: server.run(TOKENS, "seal")},
    (TOKENS, "checkpoint"): {
        "": lambda server: server.run(TOKENS, "seal") and server.run(TOKENS, "checkpoint", "--json")
    },
    (TOKENS, "verify"): {"": lambda server: server.run(TOKENS, "seal") and server.run(TOKENS, "verify")},
    (TOKENS, "review"): {"": lambda server: server.run(TOKENS, "review", "x", "--reason", "a test")},
    (TOKENS, "erase-name"): {"": lambda server: server.run(TOKENS, "erase-name", "--user", server.old.user_uuid)},
    (TOKENS, "prune"): {"": lambda server: server.run(TOKENS, "prune", "--older-than", "1d")},
    ("check", ""): {"": lambda server: server.run("check", "--database", "default")},
    ("dumpdata", ""): {"": lambda server: server.run("dumpdata", "instaccess")},
}
"""The functions that run each command, by command, subcommand and label. A function returns the command's output."""


def subcommands() -> Iterator[tuple[str, str]]:
    """Yield each command of this package with each of its subcommands, or with "" if it has no subcommands."""
    for module in pkgutil.iter_modules(commands.__path__):
        parser = load_command_class("instaccess", module.name).create_parser("manage.py", module.name)
        groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        yield from ((module.name, name) for group in groups for name in group.choices)
        if not groups:
            yield module.name, ""


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(run, id=" ".join([*command, name]))
        for command, runs in RUNS.items()
        for name, run in runs.items()
    ],
)
def test_k14_failure_of_any_sql_statement_of_a_command_reveals_no_secret(run, server, find_leaks):
    assert find_leaks(lambda: run(server)) == []


def test_k14_tests_of_error_reports_run_every_command():
    assert {("check", ""), ("dumpdata", ""), *subcommands()} == set(RUNS)
