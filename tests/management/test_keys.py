"""`manage.py instaccess_keys`: what it says, what it writes where, and how it ends."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command, load_command_class
from django.db import InterfaceError, OperationalError, connection
from django.test import override_settings
from jwcrypto.jwk import JWK

from instaccess import issuer, keymaterial, keys, lifecycle
from instaccess.conf import conf
from instaccess.models import IssuedToken, Key
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SUBCOMMANDS = ["list", "generate", "import", "export", "rotate", "activate", "revoke", "reseal"]


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


def run(*args: str) -> str:
    """What the command writes to standard output, having succeeded."""
    out = io.StringIO()
    call_command("instaccess_keys", *args, stdout=out)
    return out.getvalue()


def run_json(*args: str) -> Any:
    return json.loads(run(*args, "--json"))


def complaint(*args: str, out: io.StringIO | None = None) -> str:
    """What it says where it fails: `manage.py` writes that to standard error, and exits with 1."""
    with pytest.raises(CommandError) as caught:
        call_command("instaccess_keys", *args, stdout=out or io.StringIO(), stderr=io.StringIO())
    assert caught.value.returncode == 1
    return str(caught.value)


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)


def rows() -> list[dict[str, Any]]:
    return list(Key.objects.order_by("pk").values())


@pytest.fixture
def pair(rsa_pool: Any) -> JWK:
    return rsa_pool.take()


@pytest.fixture
def files(tmp_path: Path, pair: JWK) -> dict[str, str]:
    """A key as its owner would hand it over, in every way."""
    paths = {}
    for name, file_format, private in (
        ("public.pem", "pem", False),
        ("private.pem", "pem", True),
        ("public.jwk", "jwk", False),
        ("private.jwk", "jwk", True),
    ):
        path = tmp_path / name
        path.write_text(keymaterial.to_text(pair, file_format=file_format, private=private))
        paths[name] = str(path)
    return paths


class TestHelp:
    def help_of(self, capsys: Any, *args: str) -> str:
        parser = load_command_class("instaccess", "instaccess_keys").create_parser("manage.py", "instaccess_keys")
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([*args, "--help"])
        assert ended.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    def test_names_every_subcommand_and_what_it_does(self, capsys):
        text = self.help_of(capsys)

        for name in SUBCOMMANDS:
            assert f" {name} " in text

    @pytest.mark.parametrize(
        ("subcommand", "words"),
        [
            ("list", "where it stands in its life"),
            ("generate", "Make a new future key"),
            ("import", "A private key is refused unless --with-private"),
            ("export", "the public half, or with --private both"),
            ("rotate", "exit code 0 also when nothing was due"),
            ("activate", "the one before becomes past"),
            ("revoke", "This can't be undone"),
            ("reseal", "safe to run again after an interruption"),
        ],
    )
    def test_of_each_says_what_will_happen(self, subcommand, words, capsys):
        assert words in self.help_of(capsys, subcommand)

    @pytest.mark.parametrize("subcommand", SUBCOMMANDS)
    def test_of_each_explains_every_option_of_its_own(self, subcommand, capsys):
        parser = load_command_class("instaccess", "instaccess_keys").create_parser("manage.py", "instaccess_keys")
        choices = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices

        for action in choices[subcommand]._actions:
            assert action.help, action.option_strings

    def test_of_subcommands_is_in_the_error_for_a_missing_one(self, tmp_path):
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
    def test_names_options_of_django_that_are_taken_before_and_after_a_subcommand(self, subcommand, option):
        parser = load_command_class("instaccess", "instaccess_keys").create_parser("manage.py", "instaccess_keys")

        assert parser.parse_args([*option, subcommand]) == parser.parse_args([subcommand, *option])
        assert parser.parse_args([*option, subcommand]) != parser.parse_args([subcommand])

    def test_names_settings_which_are_taken_after_a_subcommand_too(self, tmp_path):
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
    def test_is_pointed_to_by_an_error_of_usage(self, args):
        assert complaint(*args).startswith("Error: ")


@pytest.mark.usefixtures("initial_keys")
class TestList:
    def test_shows_each_key_its_halves_and_what_comes_next(self):
        lines = run("list").splitlines()

        assert sorted(lines) == sorted(
            [
                f"sig  current  {key_of(SIG, 'current').kid}  both halves; due for rotation at 2026-12-23T12:00:00Z",
                f"sig  future   {key_of(SIG, 'future').kid}  both halves; ready to take over at 2026-11-23T12:05:03Z",
                f"enc  current  {key_of(ENC, 'current').kid}  both halves; due for rotation at 2026-12-23T12:00:00Z",
            ]
        )

    def test_tells_the_other_turns_of_a_life(self, clock, pair):
        past = lifecycle.rotate(SIG, force=True).retired.kid
        revoked = lifecycle.revoke(key_of(ENC, "current").kid).key.kid
        public = keys.import_key(keymaterial.to_text(pair, file_format="pem", private=False), use=ENC).kid
        lines = {line.split()[2]: line for line in run("list").splitlines()}

        assert lines[past].endswith("both halves; valid for its tokens until 2026-11-23T13:01:03Z")
        assert lines[revoked].endswith("public half only; revoked at 2026-11-23T12:00:00Z")
        assert lines[public].endswith("public half only; ready to take over")
        clock.shift(timedelta(days=1))
        assert f"{past}  both halves; gone\n" in run("list")

    def test_says_what_does_not_go_on_by_itself_under_the_gateways_public_key(self, files, rsa_pool):
        made = lifecycle.rotate(ENC).made.kid
        run("import", "--use", "enc", "--file", files["public.pem"])
        text = run("activate", "--kid", Key.objects.get(use=ENC, sealed_private_jwk="").kid)
        public = keymaterial.to_text(rsa_pool.take(), file_format="pem", private=False)
        signing = keys.import_key(public, use=SIG).kid
        lines = {line.split()[2]: line for line in run("list").splitlines()}

        assert f"`python manage.py instaccess_keys revoke --kid {made}`" in text
        assert "Only the gateway that has its private half can open new tokens" in text
        assert lines[made].endswith("does not take over by itself: the gateway's keys come from their owner")
        assert lines[key_of(ENC, "current").kid].endswith("the next one comes from its owner (import it)")
        assert lines[signing].endswith("only its public half is held here: it can't sign")

    def test_says_that_the_gateways_key_is_due_once_its_next_is_there(self, files, clock, rsa_pool):
        Key.objects.filter(use=ENC).delete()
        run("import", "--use", "enc", "--file", files["public.pem"])
        current = lifecycle.activate(Key.objects.get(use=ENC).kid).kid
        clock.shift(timedelta(days=31))
        keys.import_key(keymaterial.to_text(rsa_pool.take(), file_format="pem", private=False), use=ENC)
        lines = {line.split()[2]: line for line in run("list").splitlines()}

        assert lines[current].endswith("due for rotation at 2026-12-23T12:00:00Z")

    def test_as_json_has_the_same_facts(self):
        facts = {key["kid"]: key for key in run_json("list")}
        kid = key_of(SIG, "current").kid

        assert len(facts) == 3
        assert facts[kid] == {
            "kid": kid,
            "use": "sig",
            "status": "current",
            "private": True,
            "created_at": "2026-11-23T12:00:00Z",
            "activated_at": "2026-11-23T12:00:00Z",
            "retired_at": None,
            "revoked_at": None,
            "next": "due for rotation at 2026-12-23T12:00:00Z",
        }

    def test_without_keys_names_the_command(self):
        Key.objects.all().delete()

        assert "instaccess_init" in run("list")
        assert run_json("list") == []


class TestGenerate:
    @pytest.mark.parametrize(("use", "word"), [("sig", "signing"), ("enc", "encryption")])
    def test_says_which_key_it_made_and_when_it_is_ready(self, use, word):
        text = run("generate", "--use", use)
        key = Key.objects.get()

        assert (key.use, key.status) == (use, "future")
        assert text == f"Made the future {word} key {key.kid}; ready to take over at 2026-11-23T12:05:03Z.\n"

    def test_as_json_has_the_key(self):
        facts = run_json("generate", "--use", "sig")

        assert facts["kid"] == Key.objects.get().kid
        assert facts["status"] == "future"


class TestImport:
    @pytest.mark.parametrize("name", ["public.pem", "public.jwk"])
    def test_of_a_public_key_says_how_to_use_it_now(self, name, files, pair):
        text = run("import", "--use", "enc", "--file", files[name])

        assert "public half" in text
        assert f"`python manage.py instaccess_keys activate --kid {pair.thumbprint()}`" in text
        assert not Key.objects.get().has_private

    @pytest.mark.usefixtures("initial_keys")
    def test_k4_of_a_signing_key_says_when_it_takes_over_and_how_else_if_it_can_sign(self, files):
        with_private = run("import", "--use", "sig", "--file", files["private.pem"], "--with-private")
        kid = Key.objects.order_by("pk").last().kid

        assert "ready to take over at 2026-11-23T12:05:03Z" in with_private
        assert f"`python manage.py instaccess_keys activate --kid {kid} --force`" in with_private

    def test_of_a_public_signing_key_names_no_command_that_would_fail(self, files):
        text = run("import", "--use", "sig", "--file", files["public.pem"])

        assert "it can't sign" in text
        assert "activate" not in text

    @pytest.mark.parametrize("name", ["private.pem", "private.jwk"])
    def test_of_a_private_key_is_refused_and_says_why_and_how_else(self, name, files):
        text = complaint("import", "--use", "enc", "--file", files[name])

        assert "whoever holds the private half can open every token" in text
        assert "--with-private" in text
        assert not Key.objects.exists()

    @pytest.mark.parametrize("name", ["private.pem", "private.jwk"])
    def test_of_a_private_key_that_must_live_here_takes_both_halves(self, name, files):
        facts = run_json("import", "--use", "enc", "--file", files[name], "--with-private")

        assert facts["private"] is True
        assert Key.objects.get().has_private

    def test_reads_standard_input(self, files, monkeypatch, pair):
        with Path(files["public.pem"]).open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            run("import", "--use", "enc", "--file", "-")

        assert Key.objects.get().kid == pair.thumbprint()

    def test_of_a_file_that_is_not_there_names_it(self, tmp_path):
        path = str(tmp_path / "nowhere.pem")

        assert complaint("import", "--use", "enc", "--file", path) == f"Can't read {path}: No such file or directory"

    def test_of_a_folder_names_it(self, tmp_path):
        assert (
            complaint("import", "--use", "enc", "--file", str(tmp_path)) == f"Can't read {tmp_path}: Is a directory"
        )

    def test_of_what_is_no_key_says_so(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("Milk, bread")

        assert "neither an unencrypted PEM key nor a JWK" in complaint("import", "--use", "enc", "--file", str(path))

    def test_k11_twice_is_refused(self, files):
        run("import", "--use", "enc", "--file", files["public.pem"])

        again = complaint("import", "--use", "enc", "--file", files["public.jwk"])
        other_use = complaint("import", "--use", "sig", "--file", files["public.jwk"])
        both_halves = complaint("import", "--use", "enc", "--file", files["private.jwk"], "--with-private")

        assert again == "this key is already held, for use 'enc' (future)"
        assert other_use == "this key is already held, for use 'enc'; one key has one purpose"
        assert "can't be added later: make a new pair" in both_halves


@pytest.mark.usefixtures("initial_keys")
class TestExport:
    @pytest.mark.parametrize("args", [[], ["--format", "pem"], ["--format", "jwk"]])
    def test_writes_the_public_half_and_nothing_else(self, args):
        key = key_of(ENC, "current")
        read = keymaterial.parse(run("export", "--kid", key.kid, *args))

        assert (read.thumbprint(), read.has_private) == (key.kid, False)

    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    def test_writes_both_halves_where_that_is_asked_for_and_confirmed(self, file_format):
        key = key_of(ENC, "current")
        read = keymaterial.parse(run("export", "--kid", key.kid, "--format", file_format, "--private", "--yes"))

        assert (read.thumbprint(), read.has_private) == (key.kid, True)

    def test_takes_the_beginning_of_a_kid(self):
        key = key_of(SIG, "current")

        assert keymaterial.parse(run("export", "--kid", key.kid[:6])).thumbprint() == key.kid

    def test_of_an_unknown_kid_says_where_to_look(self):
        assert complaint("export", "--kid", "unknown-kid") == (
            "there is no key 'unknown-kid': see `python manage.py instaccess_keys list`"
        )

    def test_of_a_private_half_that_is_not_held_says_so(self, files, pair):
        run("import", "--use", "enc", "--file", files["public.pem"])

        assert "only the public half" in complaint("export", "--kid", pair.thumbprint(), "--private", "--yes")

    def test_of_a_key_that_was_altered_is_refused(self, pair):
        key = key_of(ENC, "current")
        key.public_jwk = {**key.public_jwk, "n": pair["n"]}
        key.save()

        assert "was altered" in complaint("export", "--kid", key.kid)


@pytest.mark.usefixtures("initial_keys")
class TestBeforeAPrivateHalfIsWritten:
    def export(self, monkeypatch: Any, typed: str | None, kid: str) -> tuple[str, str]:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdin", None if typed is None else io.StringIO(typed))
        call_command("instaccess_keys", "export", "--kid", kid[:6], "--private", stdout=out, stderr=err)
        return out.getvalue(), err.getvalue()

    @pytest.mark.parametrize(("use", "power"), [(SIG, "forge"), (ENC, "open")])
    def test_its_kid_is_to_be_typed_and_the_question_says_what_is_at_stake(self, use, power, monkeypatch):
        kid = key_of(use, "current").kid
        out, err = self.export(monkeypatch, f"{kid}\n", kid)

        assert keymaterial.parse(out).has_private
        assert f"can {power} every token" in err
        assert kid in err

    @pytest.mark.parametrize("typed", ["", "\n", "yes\n", "y\n", None], ids=["EOF", "empty", "yes", "y", "no stdin"])
    def test_nothing_else_will_do(self, typed, monkeypatch):
        with pytest.raises(
            CommandError, match=r"Not exported: the key's id was not typed\. In a script, say --yes\."
        ):
            self.export(monkeypatch, typed, key_of(SIG, "current").kid)

    def test_the_beginning_of_it_will_not_do_nor_another_key(self, monkeypatch):
        kid, other = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        for typed in (kid[:6], kid[:-1], other):
            with pytest.raises(CommandError, match="Not exported"):
                self.export(monkeypatch, typed + "\n", kid)

    def test_nothing_is_written_where_it_was_not_typed(self, monkeypatch):
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
        complaint("export", "--kid", key_of(SIG, "current").kid, "--private", out=out)

        assert out.getvalue() == ""


@pytest.mark.usefixtures("initial_keys")
class TestRotate:
    def test_when_nothing_is_due_says_when_it_will_be(self):
        run("rotate")  # makes the future encryption key
        before = rows()

        assert run("rotate").splitlines() == [
            "signing: nothing was due.",
            "signing: the next rotation is due at 2026-12-23T12:00:00Z.",
            "encryption: nothing was due.",
            "encryption: the next rotation is due at 2026-12-23T12:00:00Z.",
        ]
        assert rows() == before

    def test_when_it_is_due_says_what_it_did(self, clock):
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        clock.shift(timedelta(days=30))
        lines = run("rotate", "--use", "sig").splitlines()

        assert lines == [
            f"signing: key {future} is current now, after {current}.",
            f"signing: made the future key {key_of(SIG, 'future').kid}.",
            "signing: the next rotation is due at 2027-01-22T12:00:00Z.",
        ]

    def test_of_encryption_keys_says_what_a_gateway_elsewhere_needs(self):
        text = run("rotate", "--use", "enc")

        assert f"export --private --kid {key_of(ENC, 'future').kid}`" in text

    def test_says_what_it_erased(self, clock):
        past = lifecycle.rotate(SIG, force=True).retired.kid
        clock.shift(timedelta(seconds=conf.key_retention_seconds))

        assert f"signing: erased the private half of key {past}: its last token is dead." in run("rotate")

    def test_by_force_does_it_now(self):
        future = key_of(SIG, "future").kid
        run("rotate", "--use", "sig", "--force")

        assert key_of(SIG, "current").kid == future

    def test_says_that_the_next_public_key_comes_from_its_owner(self, files, pair):
        Key.objects.filter(use=ENC).delete()
        run("import", "--use", "enc", "--file", files["public.pem"])
        run("activate", "--kid", pair.thumbprint())

        assert "the next one comes from its owner (import it)" in run("rotate", "--use", "enc")

    def test_as_json_has_one_object_for_each_use(self, clock):
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        clock.shift(timedelta(days=30))
        signing, encryption = run_json("rotate")

        assert signing == {
            "use": "sig",
            "retired": current,
            "activated": future,
            "made": key_of(SIG, "future").kid,
            "erased": [],
            "lost_race": False,
            "next_due": "2027-01-22T12:00:00Z",
        }
        assert (encryption["use"], encryption["activated"], encryption["made"]) == (
            "enc",
            None,
            key_of(ENC, "future").kid,
        )

    def test_k8_without_a_current_key_names_the_command(self):
        Key.objects.all().delete()
        text = complaint("rotate")

        assert "there is no current signing key" in text
        assert "there is no current encryption key" in text
        assert "instaccess_init" in text

    def test_does_and_tells_what_it_can_when_one_use_is_in_trouble(self, clock):
        Key.objects.filter(use=SIG, status="current").delete()
        out = io.StringIO()
        text = complaint("rotate", "--json", out=out)

        assert "there is no current signing key" in text
        assert [outcome["made"] for outcome in json.loads(out.getvalue())] == [key_of(ENC, "future").kid]


@pytest.mark.usefixtures("initial_keys")
class TestActivate:
    def test_says_what_is_current_now(self):
        kid = key_of(SIG, "future").kid

        assert run("activate", "--kid", kid[:8], "--force") == f"Key {kid} is the current signing key now.\n"
        assert key_of(SIG, "current").kid == kid

    def test_k4_too_early_says_when_and_how_else(self):
        text = complaint("activate", "--kid", key_of(SIG, "future").kid)

        assert "2026-11-23 12:05:03 UTC" in text
        assert "--force" in text

    def test_as_json_has_the_key(self):
        kid = key_of(SIG, "future").kid

        assert run_json("activate", "--kid", kid, "--force")["status"] == "current"


@pytest.mark.usefixtures("initial_keys")
class TestRevoke:
    def test_says_how_many_tokens_fell_and_who_took_over(self, user):
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        issuer.issue(user=user, origin=issuer.Origin("canvas.example.edu"), now=time.time())
        text = run("revoke", "--kid", current, "--reason", "laptop stolen")

        assert (
            text == f"Key {current} is revoked, and with it every live token under it (1). Key {future} took over.\n"
        )
        assert IssuedToken.objects.get().revocation_reason == "laptop stolen"

    def test_says_in_the_audit_who_did_it(self, user, monkeypatch):
        monkeypatch.setenv("LOGNAME", "ada\udc80")
        issuer.issue(user=user, origin=issuer.Origin("canvas.example.edu"), now=time.time())
        run("revoke", "--kid", key_of(SIG, "current").kid)

        assert IssuedToken.objects.get().revoked_by == "ada? (command line)"

    def test_of_a_key_that_is_not_current_says_that_that_one_stays(self):
        assert "The current key is another one and stays." in run("revoke", "--kid", key_of(SIG, "future").kid)

    def test_that_leaves_no_current_key_says_what_to_do(self, files, pair):
        Key.objects.filter(use=ENC).delete()
        run("import", "--use", "enc", "--file", files["public.pem"])
        run("activate", "--kid", pair.thumbprint())

        assert "There is no current encryption key now: import or generate one and activate it." in run(
            "revoke", "--kid", pair.thumbprint()
        )

    def test_as_json_has_the_key_its_successor_and_the_new_future_key(self):
        current, future = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        facts = run_json("revoke", "--kid", current)

        assert (facts["key"]["kid"], facts["key"]["status"]) == (current, "revoked")
        assert (facts["successor"]["kid"], facts["made"]["kid"]) == (future, key_of(SIG, "future").kid)
        assert facts["tokens"] == 0

    def test_of_an_unknown_key_is_refused(self):
        assert "there is no key" in complaint("revoke", "--kid", "unknown-kid")


@pytest.mark.usefixtures("initial_keys")
class TestReseal:
    def test_says_how_many_keys_it_sealed_anew(self):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43, "SECRET_KEY"]}):
            assert run("reseal") == "3 private keys sealed anew.\n"
            assert run("reseal") == "Every private key was sealed under the first key-encryption key already.\n"

    def test_as_json_has_the_numbers(self):
        assert run_json("reseal") == {"resealed": 0, "reauthenticated": 0}

    def test_o6_without_the_old_key_encryption_key_names_the_setting(self):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
            assert "INSTACCESS['KEY_ENCRYPTION_KEYS']" in complaint("reseal")


class TestWithoutADatabase:
    @pytest.mark.parametrize("error", [OperationalError, InterfaceError])
    @pytest.mark.parametrize("args", [["list"], ["generate", "--use", "sig"], ["rotate"], ["reseal"]], ids=" ".join)
    def test_o1_it_says_what_the_database_says_and_asks_for_the_tables(self, args, error):
        def away(*_: Any) -> Any:
            raise error("no such table: instaccess_key")

        with connection.execute_wrapper(away):
            text = complaint(*args)

        assert "no such table: instaccess_key" in text
        assert "`python manage.py migrate`" in text


@pytest.mark.own_database
class TestAsAProcess:
    def manage(self, database: Path, *args: str, **kwargs: Any) -> Any:
        environment = {
            **os.environ,
            "INSTACCESS_DATABASE": "sqlite",
            "SQLITE_NAME": str(database),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            [sys.executable, "manage.py", *args],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **kwargs,
        )

    def test_before_migrate_it_ends_with_1_and_one_clear_line(self, tmp_path):
        result = self.manage(tmp_path / "empty.sqlite3", "instaccess_keys", "list", "--json")

        assert result.returncode == 1
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        assert "`python manage.py migrate`" in result.stderr

    def test_its_answer_is_all_there_is_on_standard_output_though_migrations_of_others_wait(self, tmp_path):
        """A notice of Django's amid a PEM file or JSON would break who reads it."""
        database = tmp_path / "half.sqlite3"
        assert self.manage(database, "migrate", "instaccess", "--verbosity", "0").returncode == 0
        assert self.manage(database, "instaccess_init").returncode == 0
        listed = self.manage(database, "instaccess_keys", "list", "--json")
        exported = self.manage(
            database, "instaccess_keys", "export", "--kid", json.loads(listed.stdout)[0]["kid"], "--private", input=""
        )

        assert listed.returncode == 0
        assert [key["use"] for key in json.loads(listed.stdout)] == ["enc", "sig", "sig"]
        assert (exported.returncode, exported.stdout) == (1, "")
        assert "Not exported" in exported.stderr


class TestAKeyIdThatBeginsWithADash:
    @pytest.mark.parametrize("kid", ["-hJ2c", "--json", "--kid", "-_" + "x" * 41])
    @pytest.mark.parametrize("subcommand", ["export", "activate", "revoke"])
    def test_is_taken_for_a_key_id_and_for_no_option(self, subcommand, kid):
        assert repr(kid) in complaint(subcommand, "--kid", kid)

    def test_that_is_missing_is_asked_for(self):
        assert "expected one argument" in complaint("revoke", "--kid")


@pytest.mark.usefixtures("initial_keys")
class TestRevokingWithABadKeyEncryptionSetting:
    def test_revokes_all_the_same_and_fails_for_want_of_a_successor(self):
        kid = key_of(SIG, "current").kid
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["no key"]}):
            said = complaint("revoke", "--kid", kid)

        assert "The key is revoked, but no new one could be made" in said
        assert "KEY_ENCRYPTION_KEYS" in said
        assert Key.objects.get(kid=kid).status == "revoked"
        assert not Key.objects.filter(use=SIG, status="current").exists()
