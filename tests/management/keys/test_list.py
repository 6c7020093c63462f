"""Tests of `manage.py instaccess_keys list`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from instaccess.keys import lifecycle
from instaccess.models import Key
from instaccess.trust import material
from tests.management.keys.helpers import ENC, SIG, key_of, run, run_json
from tests.support import key_texts

pytestmark = pytest.mark.django_db


@pytest.mark.usefixtures("initial_keys")
class TestKeysList:
    def test_keys_list_prints_each_key_with_its_status_and_next_step(self):
        lines = run("list").splitlines()

        signing, future, encryption = (
            key_of(SIG, "current").kid,
            key_of(SIG, "future").kid,
            key_of(ENC, "current").kid,
        )
        assert sorted(lines) == sorted(
            [
                f"sig  current  {signing}  with private key; due for rotation at 2026-12-23T12:00:00Z",
                f"sig  future   {future}  with private key; ready to become current at 2026-11-23T12:05:03Z",
                f"enc  current  {encryption}  with private key; due for rotation at 2026-12-23T12:00:00Z",
            ]
        )

    def test_keys_list_prints_the_next_step_of_past_revoked_and_public_keys(self, clock, pair):
        past = lifecycle.rotate(SIG, force=True).retired.kid
        revoked = lifecycle.revoke(key_of(ENC, "current").kid).key.kid
        public = key_texts.import_key(material.to_text(pair, file_format="pem"), use=ENC).kid
        lines = {line.split()[2]: line for line in run("list").splitlines()}

        assert lines[past].endswith("with private key; its tokens are accepted until 2026-11-23T13:01:03Z")
        assert lines[revoked].endswith("public key only; revoked at 2026-11-23T12:00:00Z")
        assert lines[public].endswith("public key only; ready to become current")
        clock.shift(timedelta(days=1))
        assert f"{past}  with private key; no longer used: its last token has expired\n" in run("list")

    def test_keys_list_explains_why_a_key_does_not_become_current_automatically(self, files, rsa_pool):
        generated = lifecycle.rotate(ENC).generated.kid
        run("import", "--use", "enc", "--file", files["public.pem"])
        text = run("activate", "--kid", Key.objects.get(use=ENC, sealed_private_jwk="").kid)
        public = material.to_text(rsa_pool.take(), file_format="pem")
        signing = key_texts.import_key(public, use=SIG).kid
        lines = {line.split()[2]: line for line in run("list").splitlines()}

        assert f"`python manage.py instaccess_keys revoke --kid {generated}`" in text
        assert "Only the gateway that has the private key can decrypt new tokens" in text
        assert lines[generated].endswith(
            "does not become current automatically, because the gateway lacks its private key"
        )
        assert lines[key_of(ENC, "current").kid].endswith(
            "import the next public key from the owner of the private key"
        )
        assert lines[signing].endswith("can't sign, because only its public key is stored on this server")

    def test_keys_list_prints_the_due_time_of_the_public_key_of_a_gateway_if_the_next_key_is_stored(
        self, files, clock, rsa_pool
    ):
        Key.objects.filter(use=ENC).delete()
        run("import", "--use", "enc", "--file", files["public.pem"])
        current = lifecycle.activate(Key.objects.get(use=ENC).kid).kid
        clock.shift(timedelta(days=31))
        key_texts.import_key(material.to_text(rsa_pool.take(), file_format="pem"), use=ENC)
        lines = {line.split()[2]: line for line in run("list").splitlines()}

        assert lines[current].endswith("due for rotation at 2026-12-23T12:00:00Z")

    def test_keys_list_as_json_contains_the_columns_and_the_next_step_of_each_key(self):
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
            "problem": None,
            "next": "due for rotation at 2026-12-23T12:00:00Z",
        }

    def test_keys_list_without_keys_names_the_command_instaccess_init(self):
        Key.objects.all().delete()

        assert "instaccess_init" in run("list")
        assert run_json("list") == []
