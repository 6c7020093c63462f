"""Tests of `manage.py instaccess_keys generate`, `import` and `export`."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from instaccess.models import Key
from tests.management.keys.helpers import ENC, SIG, error_of, key_of, run, run_json
from tests.support import key_texts

pytestmark = pytest.mark.django_db


class TestKeysGenerate:
    @pytest.mark.parametrize(("use", "word"), [("sig", "signing"), ("enc", "encryption")])
    def test_generate_prints_the_key_id_and_the_time_when_the_key_is_ready(self, use, word):
        text = run("generate", "--use", use)
        key = Key.objects.get()

        assert (key.use, key.status) == (use, "future")
        assert (
            text == f"Generated the future {word} key {key.kid}; ready to become current at 2026-11-23T12:05:03Z.\n"
        )

    def test_generate_prints_the_key_as_json(self):
        facts = run_json("generate", "--use", "sig")

        assert facts["kid"] == Key.objects.get().kid
        assert facts["status"] == "future"


class TestKeysImport:
    @pytest.mark.parametrize("name", ["public.pem", "public.jwk"])
    def test_import_of_a_public_key_prints_the_command_that_activates_the_key(self, name, files, pair):
        text = run("import", "--use", "enc", "--file", files[name])

        assert "public key only" in text
        assert f"`python manage.py instaccess_keys activate --kid {pair.thumbprint()}`" in text
        assert not Key.objects.get().has_private

    @pytest.mark.usefixtures("initial_keys")
    def test_k4_import_of_a_signing_key_prints_the_time_when_the_key_is_ready_and_the_command_with_force(self, files):
        with_private = run("import", "--use", "sig", "--file", files["private.pem"], "--with-private")
        kid = Key.objects.order_by("pk").last().kid

        assert "ready to become current at 2026-11-23T12:05:03Z" in with_private
        assert f"`python manage.py instaccess_keys activate --kid {kid} --force`" in with_private

    def test_import_of_a_public_signing_key_prints_no_command_that_activates_the_key(self, files):
        text = run("import", "--use", "sig", "--file", files["public.pem"])

        assert "can't sign" in text
        assert "activate" not in text

    @pytest.mark.parametrize("name", ["private.pem", "private.jwk"])
    def test_import_of_a_private_key_is_refused_unless_the_option_with_private_is_given(self, name, files):
        text = error_of("import", "--use", "enc", "--file", files[name])

        assert "an attacker with the private key can decrypt every token" in text
        assert "--with-private" in text
        assert not Key.objects.exists()

    @pytest.mark.parametrize("name", ["private.pem", "private.jwk"])
    def test_import_with_the_option_with_private_stores_the_private_key(self, name, files):
        facts = run_json("import", "--use", "enc", "--file", files[name], "--with-private")

        assert facts["private"] is True
        assert Key.objects.get().has_private

    def test_import_reads_the_key_from_standard_input(self, files, monkeypatch, pair):
        with Path(files["public.pem"]).open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            run("import", "--use", "enc", "--file", "-")

        assert Key.objects.get().kid == pair.thumbprint()

    def test_import_of_a_missing_file_fails_and_names_the_file(self, tmp_path):
        path = str(tmp_path / "nowhere.pem")

        assert (
            error_of("import", "--use", "enc", "--file", path)
            == f"Can't read {path}: No such file or directory. Check the path after --file."
        )

    def test_import_of_a_folder_fails_and_names_the_folder(self, tmp_path):
        assert (
            error_of("import", "--use", "enc", "--file", str(tmp_path))
            == f"Can't read {tmp_path}: Is a directory. Check the path after --file."
        )

    def test_import_of_a_file_without_a_key_is_refused(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_text("Milk, bread")

        assert "neither an unencrypted PEM key nor a JWK" in error_of("import", "--use", "enc", "--file", str(path))

    def test_k11_import_of_a_key_that_is_already_stored_fails_with_the_reason(self, files):
        run("import", "--use", "enc", "--file", files["public.pem"])

        again = error_of("import", "--use", "enc", "--file", files["public.jwk"])
        other_use = error_of("import", "--use", "sig", "--file", files["public.jwk"])
        with_private = error_of("import", "--use", "enc", "--file", files["private.jwk"], "--with-private")

        assert again == "this key is already stored for use 'enc' (future)"
        assert other_use == (
            "this key is already stored for use 'enc'; import a different key, because a key must have only one use"
        )
        assert "can't be added to the stored public key: generate a new key pair" in with_private


@pytest.mark.usefixtures("initial_keys")
class TestKeysExport:
    @pytest.mark.parametrize("args", [[], ["--format", "pem"], ["--format", "jwk"]])
    def test_export_prints_only_the_public_key_by_default(self, args):
        key = key_of(ENC, "current")
        read = key_texts.parse(run("export", "--kid", key.kid, *args))

        assert (read.thumbprint(), read.has_private) == (key.kid, False)

    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    def test_export_with_the_options_private_and_yes_prints_the_private_key(self, file_format):
        key = key_of(ENC, "current")
        read = key_texts.parse(run("export", "--kid", key.kid, "--format", file_format, "--private", "--yes"))

        assert (read.thumbprint(), read.has_private) == (key.kid, True)

    def test_export_of_a_private_key_to_a_pipe_is_refused_and_names_the_options_file_and_yes(self):
        text = error_of("export", "--kid", key_of(SIG, "current").kid, "--private")

        assert "was not exported" in text
        assert "--file" in text
        assert "--yes" in text

    def test_export_accepts_an_abbreviated_kid(self):
        key = key_of(SIG, "current")

        assert key_texts.parse(run("export", "--kid", key.kid[:6])).thumbprint() == key.kid

    def test_export_of_an_unknown_kid_fails_and_names_the_command_list(self):
        assert error_of("export", "--kid", "unknown-kid") == (
            "there is no key 'unknown-kid': run `python manage.py instaccess_keys list`, which shows the ids"
        )

    def test_export_of_a_private_key_that_is_not_stored_is_refused(self, files, pair):
        run("import", "--use", "enc", "--file", files["public.pem"])

        assert "only the public key" in error_of("export", "--kid", pair.thumbprint(), "--private", "--yes")

    def test_export_of_a_modified_key_is_refused(self, pair):
        key = key_of(ENC, "current")
        key.public_jwk = {**key.public_jwk, "n": pair["n"]}
        key.save()

        assert "was modified" in error_of("export", "--kid", key.kid)


@pytest.mark.usefixtures("initial_keys")
class TestKeysExportToAFile:
    @pytest.fixture(autouse=True)
    def _permissive_umask(self):
        before = os.umask(0)
        yield
        os.umask(before)

    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "key.pem"

    @pytest.mark.parametrize("file_format", ["pem", "jwk"])
    def test_k21_export_writes_a_private_key_to_a_file_that_only_its_owner_can_read(self, path, file_format):
        kid = key_of(ENC, "current").kid
        out = run("export", "--kid", kid, "--private", "--format", file_format, "--file", str(path))

        key = key_texts.parse(path.read_text())
        assert (key.thumbprint(), key.has_private) == (kid, True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert out == (
            f"The private key {kid} was written to {path}, unencrypted. "
            "An attacker who has this private key can decrypt every token.\n"
        )

    def test_k21_export_sets_the_mode_of_the_file_before_the_private_key_is_written(self, path, monkeypatch):
        modes = []
        monkeypatch.setattr(os, "fsync", lambda file: modes.append(stat.S_IMODE(os.fstat(file).st_mode)))
        monkeypatch.setattr(os, "chmod", pytest.fail)
        monkeypatch.setattr(os, "fchmod", pytest.fail)

        run("export", "--kid", key_of(SIG, "current").kid, "--private", "--file", str(path))

        assert modes == [0o600]

    def test_export_writes_a_public_key_to_a_file_that_every_user_can_read(self, path):
        kid = key_of(SIG, "current").kid

        assert run("export", "--kid", kid, "--file", str(path)) == f"The public key {kid} was written to {path}.\n"
        assert not key_texts.parse(path.read_text()).has_private
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    @pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder"])
    @pytest.mark.parametrize("options", [[], ["--private"], ["--private", "--yes"]], ids=" ".join)
    def test_k21_export_never_overwrites_an_existing_file_and_never_follows_a_link(
        self, path, tmp_path, kind, options
    ):
        other = tmp_path / "other"
        match kind:
            case "file":
                path.write_text("precious")
            case "link":
                other.write_text("precious")
                path.symlink_to(other)
            case "dangling link":
                path.symlink_to(other)
            case "folder":
                path.mkdir()

        text = error_of("export", "--kid", key_of(SIG, "current").kid, *options, "--file", str(path))

        assert text == f"{path} already exists and is not overwritten: choose another file name."
        if kind in {"file", "link"}:
            assert path.read_text() == "precious"
        assert other.exists() == (kind == "link")

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
    def test_k21_export_deletes_an_incomplete_file_of_a_private_key(self, path, monkeypatch, error):
        def fail(file: int) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises((CommandError, KeyboardInterrupt)) as caught:
            run("export", "--kid", key_of(SIG, "current").kid, "--private", "--file", str(path))

        assert not path.exists()
        if isinstance(error, OSError):
            assert str(caught.value) == f"Can't write {path}: No space left on device. Choose another path."

    def test_export_into_a_missing_folder_fails_and_names_the_path(self, tmp_path):
        path = tmp_path / "nowhere" / "key.pem"

        text = error_of("export", "--kid", key_of(SIG, "current").kid, "--private", "--file", str(path))

        assert text == f"Can't write {path}: No such file or directory. Choose another path."

    @pytest.mark.parametrize("path", ["", "-"])
    def test_export_fails_if_the_option_file_contains_no_file_name(self, path, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        assert "needs the name of a new file" in error_of(
            "export", "--kid", key_of(SIG, "current").kid, "--private", "--file", path
        )
        assert list(tmp_path.iterdir()) == []

    def test_export_of_a_private_key_that_is_not_stored_creates_no_file(self, path, files, pair):
        run("import", "--use", "enc", "--file", files["public.pem"])

        error_of("export", "--kid", pair.thumbprint(), "--private", "--file", str(path))

        assert not path.exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("initial_keys")
class TestTheConfirmationOfAPrivateExport:
    """Tests of the confirmation with a simulated terminal. `test_as_a_process.py` uses a real terminal."""

    def export(self, monkeypatch: Any, typed: str | None, kid: str) -> tuple[str, str]:
        out, err = Terminal(), io.StringIO()
        monkeypatch.setattr(sys, "stdin", None if typed is None else io.StringIO(typed))
        call_command("instaccess_keys", "export", "--kid", kid[:6], "--private", stdout=out, stderr=err)
        return out.getvalue(), err.getvalue()

    @pytest.mark.parametrize(("use", "power"), [(SIG, "forge"), (ENC, "decrypt")])
    def test_export_of_a_private_key_asks_for_the_kid_and_names_the_risk(self, use, power, monkeypatch):
        kid = key_of(use, "current").kid
        out, err = self.export(monkeypatch, f"{kid}\n", kid)

        assert key_texts.parse(out).has_private
        assert f"can {power} every token" in err
        assert kid in err

    @pytest.mark.parametrize("typed", ["", "\n", "yes\n", "y\n", None], ids=["EOF", "empty", "yes", "y", "no stdin"])
    def test_export_of_a_private_key_fails_if_the_user_does_not_type_the_kid(self, typed, monkeypatch):
        with pytest.raises(CommandError, match=r"you did not type the key id\."):
            self.export(monkeypatch, typed, key_of(SIG, "current").kid)

    def test_export_of_a_private_key_fails_if_the_user_types_a_part_of_the_kid_or_another_kid(self, monkeypatch):
        kid, other = key_of(SIG, "current").kid, key_of(SIG, "future").kid
        for typed in (kid[:6], kid[:-1], other):
            with pytest.raises(CommandError, match="was not exported"):
                self.export(monkeypatch, typed + "\n", kid)

    def test_export_of_a_private_key_prints_no_key_if_the_user_does_not_type_the_kid(self, monkeypatch):
        out = Terminal()
        monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
        error_of("export", "--kid", key_of(SIG, "current").kid, "--private", out=out)

        assert out.getvalue() == ""
