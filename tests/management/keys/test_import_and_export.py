"""`manage.py instaccess_keys generate | import | export`: what goes in, and what is written where."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from instaccess.models import Key
from instaccess.trust import material
from tests.management.keys.helpers import ENC, SIG, complaint, key_of, run, run_json

pytestmark = pytest.mark.django_db


class TestGenerate:
    @pytest.mark.parametrize(("use", "word"), [("sig", "signing"), ("enc", "encryption")])
    def test_says_which_key_it_made_and_when_it_is_ready(self, use, word):
        text = run("generate", "--use", use)
        key = Key.objects.get()

        assert (key.use, key.status) == (use, "future")
        assert (
            text == f"Generated the future {word} key {key.kid}; ready to become current at 2026-11-23T12:05:03Z.\n"
        )

    def test_as_json_has_the_key(self):
        facts = run_json("generate", "--use", "sig")

        assert facts["kid"] == Key.objects.get().kid
        assert facts["status"] == "future"


class TestImport:
    @pytest.mark.parametrize("name", ["public.pem", "public.jwk"])
    def test_of_a_public_key_says_how_to_use_it_now(self, name, files, pair):
        text = run("import", "--use", "enc", "--file", files[name])

        assert "public key only" in text
        assert f"`python manage.py instaccess_keys activate --kid {pair.thumbprint()}`" in text
        assert not Key.objects.get().has_private

    @pytest.mark.usefixtures("initial_keys")
    def test_k4_of_a_signing_key_says_when_it_takes_over_and_how_else_if_it_can_sign(self, files):
        with_private = run("import", "--use", "sig", "--file", files["private.pem"], "--with-private")
        kid = Key.objects.order_by("pk").last().kid

        assert "ready to become current at 2026-11-23T12:05:03Z" in with_private
        assert f"`python manage.py instaccess_keys activate --kid {kid} --force`" in with_private

    def test_of_a_public_signing_key_names_no_command_that_would_fail(self, files):
        text = run("import", "--use", "sig", "--file", files["public.pem"])

        assert "can't sign" in text
        assert "activate" not in text

    @pytest.mark.parametrize("name", ["private.pem", "private.jwk"])
    def test_of_a_private_key_is_refused_and_says_why_and_how_else(self, name, files):
        text = complaint("import", "--use", "enc", "--file", files[name])

        assert "an attacker with the private key can decrypt every token" in text
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
        with_private = complaint("import", "--use", "enc", "--file", files["private.jwk"], "--with-private")

        assert again == "this key is already stored for use 'enc' (future)"
        assert other_use == "this key is already stored for use 'enc'; a key must have only one use"
        assert "can't be added later: generate a new key pair" in with_private


@pytest.mark.usefixtures("initial_keys")
class TestExport:
    @pytest.mark.parametrize("args", [[], ["--format", "pem"], ["--format", "jwk"]])
    def test_writes_the_public_half_and_nothing_else(self, args):
        key = key_of(ENC, "current")
        read = material.parse(run("export", "--kid", key.kid, *args))

        assert (read.thumbprint(), read.has_private) == (key.kid, False)

    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    def test_writes_both_halves_where_that_is_asked_for_and_confirmed(self, file_format):
        key = key_of(ENC, "current")
        read = material.parse(run("export", "--kid", key.kid, "--format", file_format, "--private", "--yes"))

        assert (read.thumbprint(), read.has_private) == (key.kid, True)

    def test_takes_the_beginning_of_a_kid(self):
        key = key_of(SIG, "current")

        assert material.parse(run("export", "--kid", key.kid[:6])).thumbprint() == key.kid

    def test_of_an_unknown_kid_says_where_to_look(self):
        assert complaint("export", "--kid", "unknown-kid") == (
            "there is no key 'unknown-kid': see `python manage.py instaccess_keys list`"
        )

    def test_of_a_private_half_that_is_not_held_says_so(self, files, pair):
        run("import", "--use", "enc", "--file", files["public.pem"])

        assert "only the public key" in complaint("export", "--kid", pair.thumbprint(), "--private", "--yes")

    def test_of_a_key_that_was_altered_is_refused(self, pair):
        key = key_of(ENC, "current")
        key.public_jwk = {**key.public_jwk, "n": pair["n"]}
        key.save()

        assert "was modified" in complaint("export", "--kid", key.kid)


@pytest.mark.usefixtures("initial_keys")
class TestBeforeAPrivateHalfIsWritten:
    def export(self, monkeypatch: Any, typed: str | None, kid: str) -> tuple[str, str]:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdin", None if typed is None else io.StringIO(typed))
        call_command("instaccess_keys", "export", "--kid", kid[:6], "--private", stdout=out, stderr=err)
        return out.getvalue(), err.getvalue()

    @pytest.mark.parametrize(("use", "power"), [(SIG, "forge"), (ENC, "decrypt")])
    def test_its_kid_is_to_be_typed_and_the_question_says_what_is_at_stake(self, use, power, monkeypatch):
        kid = key_of(use, "current").kid
        out, err = self.export(monkeypatch, f"{kid}\n", kid)

        assert material.parse(out).has_private
        assert f"can {power} every token" in err
        assert kid in err

    @pytest.mark.parametrize("typed", ["", "\n", "yes\n", "y\n", None], ids=["EOF", "empty", "yes", "y", "no stdin"])
    def test_nothing_else_will_do(self, typed, monkeypatch):
        with pytest.raises(CommandError, match=r"Not exported: the key id was not typed\. In a script, add --yes\."):
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
