"""Tests that each way to revoke tokens or change keys sends the signal `tokens_revoked` or `key_changed`."""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import transaction
from django.test import Client, override_settings
from django.utils import timezone

from instaccess import audit, keys, signals
from instaccess.audit import revocation_log
from instaccess.conf import conf
from instaccess.issuer import Origin, issue
from instaccess.keys import store
from instaccess.models import IssuedToken, Key
from tests.admin.keys.helpers import GENERATE, IMPORT, revoke_url
from tests.keys.helpers import public_pem
from tests.support.receiving import connected, received

ROTATE = "/admin/instaccess/key/rotate/sig/"
TOKENS = "/admin/instaccess/issuedtoken/"

# These tests commit their transactions, because both signals are sent after a commit.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("initial_keys")]

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
COMMAND_LINE = f"uid {os.getuid()} "


class Deployment:
    """A deployment with a user, and methods that issue a token, revoke the token and change keys."""

    def __init__(self, user: Any, application: Any, superuser: Any, folder: Path, rsa_pool: Any) -> None:
        self.user, self.application, self.superuser = user, application, superuser
        self.folder, self.rsa_pool = folder, rsa_pool
        self.client = Client()
        self.client.force_login(superuser)

    def issue(self) -> IssuedToken:
        origin = Origin("canvas.example.edu")
        return issue(user=self.user, origin=origin, application=self.application, now=time.time())[0]

    def key(self, use: Key.Use, status: str) -> Key:
        return Key.objects.get(use=use, status=status)

    def post(self, url: str, **form: Any) -> None:
        assert self.client.post(url, {"confirmed": "yes", **form}).status_code == 302

    def act_on_token(self, action: str, **form: Any) -> None:
        pk = IssuedToken.objects.get().pk
        self.post(TOKENS, action=action, _selected_action=[pk], index="0", reason="laptop lost", **form)

    def new_public_key(self) -> Path:
        file = self.folder / "public.pem"
        file.write_text(public_pem(self.rsa_pool))
        return file

    def record_interrupted_revocation(self) -> None:
        """Record a revocation of the user's tokens, but don't mark the rows, as a killed process might."""
        act = revocation_log.Act(audit.current_time(), "root", "laptop lost")
        scope = audit.Scope.user(IssuedToken.objects.get().user_uuid)
        revocation_log.record([scope], act, latest_iat=None, keks=conf.key_encryption_keys)


@pytest.fixture
def deployment(user: Any, application: Any, tmp_path: Path, rsa_pool: Any) -> Deployment:
    superuser = get_user_model().objects.create_superuser("root", password=secrets.token_urlsafe())
    return Deployment(user, application, superuser, tmp_path, rsa_pool)


def tokens(*arguments: str) -> Callable[[Deployment], None]:
    """Return a function that revokes tokens with the command. `{jti}`, for example, becomes the id of the token."""

    def run(deployment: Deployment) -> None:
        row = IssuedToken.objects.get()
        values = {"jti": row.jti, "client_id": row.client_id, "account": row.account_uuid}
        filled = [argument.format(**values) for argument in arguments]
        call_command("instaccess_tokens", "revoke", *filled, "--reason", "laptop lost")

    return run


def key_command(*arguments: str, use: Key.Use = SIG, status: str = "current") -> Callable[[Deployment], None]:
    def run(deployment: Deployment) -> None:
        kid = deployment.key(use, status).kid
        call_command("instaccess_keys", *(argument.format(kid=kid) for argument in arguments))

    return run


def revoke_with_the_function(deployment: Deployment) -> None:
    audit.revoke(
        audit.revocable_tokens(), keks=conf.key_encryption_keys, reason="laptop lost", by=deployment.superuser
    )


def complete_an_interrupted_revocation(*command: str) -> Callable[[Deployment], None]:
    def run(deployment: Deployment) -> None:
        deployment.record_interrupted_revocation()
        call_command(*command)

    return run


KEY_REASON = "the key of the token was revoked"
RESTORED = "the database was restored from a backup"

# Each tuple describes a way to revoke tokens: the action, the reason, and the beginning of the operator's name.
WAYS_TO_REVOKE: dict[str, tuple[Callable[[Deployment], None], str, str]] = {
    "the command with a token id": (tokens("--jti", "{jti}"), "laptop lost", COMMAND_LINE),
    "the command with a user": (tokens("--user", "ada"), "laptop lost", COMMAND_LINE),
    "the command with a user and OAuth2 tokens": (
        tokens("--user", "ada", "--oauth2-tokens"),
        "laptop lost (0 OAuth2 tokens revoked too)",
        COMMAND_LINE,
    ),
    "the command with an application": (tokens("--application", "{client_id}"), "laptop lost", COMMAND_LINE),
    "the command with an account": (tokens("--account", "{account}"), "laptop lost", COMMAND_LINE),
    "the admin with chosen tokens": (lambda d: d.act_on_token("revoke_chosen"), "laptop lost", "root"),
    "the admin with all tokens of a user": (lambda d: d.act_on_token("revoke_users"), "laptop lost", "root"),
    "the admin with OAuth2 tokens": (
        lambda d: d.act_on_token("revoke_users", oauth2_tokens="on"),
        "laptop lost (0 OAuth2 tokens revoked too)",
        "root",
    ),
    "the admin with all tokens of an application": (
        lambda d: d.act_on_token("revoke_applications"),
        "laptop lost",
        "root",
    ),
    "the function": (revoke_with_the_function, "laptop lost", "root"),
    "the revocation of the signing key by the command": (
        key_command("revoke", "--kid", "{kid}", "--reason", "stolen"),
        "stolen",
        COMMAND_LINE,
    ),
    "the revocation of the encryption key by the command": (
        key_command("revoke", "--kid", "{kid}", use=ENC),
        KEY_REASON,
        COMMAND_LINE,
    ),
    "the revocation of a key in the admin": (
        lambda d: d.post(revoke_url(d.key(SIG, "current").kid), reason="stolen"),
        "stolen",
        "root",
    ),
    "the replacement of all keys": (key_command("after-restore", "--yes"), RESTORED, COMMAND_LINE),
    "the completion by a rotation": (
        complete_an_interrupted_revocation("instaccess_keys", "rotate"),
        "laptop lost",
        "root",
    ),
    "the completion by a seal": (
        complete_an_interrupted_revocation("instaccess_tokens", "seal"),
        "laptop lost",
        "root",
    ),
}


class TestTokensRevoked:
    @pytest.mark.parametrize("way", WAYS_TO_REVOKE)
    def test_each_way_to_revoke_tokens_sends_the_signal(self, way, deployment):
        revoke, reason, operator = WAYS_TO_REVOKE[way]
        row = deployment.issue()

        with received(signals.tokens_revoked) as facts:
            revoke(deployment)

        [sent] = facts
        assert (sent["jtis"], sent["count"], sent["reason"]) == ([str(row.jti)], 1, reason)
        assert sent["by"].startswith(operator)

    def test_facts_of_a_revocation_in_the_admin_contain_the_primary_key_of_the_operator(self, deployment):
        deployment.issue()

        with received(signals.tokens_revoked) as facts:
            deployment.act_on_token("revoke_chosen")

        assert [sent["by_user_id"] for sent in facts] == [deployment.superuser.pk]

    def test_audit_row_is_marked_as_revoked_before_a_receiver_of_the_signal_runs(self, deployment):
        deployment.issue()
        seen: list[bool] = []

        def receive(jtis: list[str], **facts: Any) -> None:
            seen.append(IssuedToken.objects.filter(jti__in=jtis).exclude(revoked_at=None).exists())

        with connected(signals.tokens_revoked, receive):
            tokens("--user", "ada")(deployment)

        assert seen == [True]

    def test_revocation_that_matches_no_live_token_sends_no_signal(self, deployment):
        deployment.issue()
        tokens("--user", "ada")(deployment)

        with received(signals.tokens_revoked) as facts:
            tokens("--user", "ada")(deployment)

        assert facts == []


def import_with_the_command(deployment: Deployment) -> None:
    call_command("instaccess_keys", "import", "--use", "enc", "--file", str(deployment.new_public_key()))


def import_in_the_admin(deployment: Deployment) -> None:
    deployment.post(IMPORT, use="enc", text=deployment.new_public_key().read_text())


def rotate_in_the_admin(deployment: Deployment) -> None:
    deployment.post(ROTATE, expected_current=deployment.key(SIG, "current").kid, force="on")


def reseal(deployment: Deployment) -> None:
    kek = base64.urlsafe_b64encode(bytes([9]) * 32).decode()
    with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [kek, "SECRET_KEY"]}):
        call_command("instaccess_keys", "reseal")


def rotate_and_erase(deployment: Deployment) -> None:
    """Rotate the encryption keys, and rotate again after the retention of the past key."""
    keys.generate(ENC)
    keys.rotate(ENC, force=True)
    with time_machine.travel(timezone.now() + timedelta(hours=3)):
        keys.rotate(ENC)


def initialize(deployment: Deployment) -> None:
    Key.objects.filter(status="future")._raw_delete("default")
    call_command("instaccess_init")


# Each tuple describes a way to change keys: the action, and the use, the change and the new status of each key.
WAYS_TO_CHANGE_KEYS: dict[str, tuple[Callable[[Deployment], Any], list[tuple[str, str, str]]]] = {
    "initialization": (initialize, [("sig", "generated", "future")]),
    "generation by the command": (key_command("generate", "--use", "sig"), [("sig", "generated", "future")]),
    "generation in the admin": (lambda d: d.post(GENERATE, use="sig"), [("sig", "generated", "future")]),
    "import by the command": (import_with_the_command, [("enc", "imported", "future")]),
    "import in the admin": (import_in_the_admin, [("enc", "imported", "future")]),
    "rotation by the command": (
        key_command("rotate", "--use", "sig", "--force"),
        [("sig", "retired", "past"), ("sig", "activated", "current"), ("sig", "generated", "future")],
    ),
    "rotation in the admin": (
        rotate_in_the_admin,
        [("sig", "retired", "past"), ("sig", "activated", "current"), ("sig", "generated", "future")],
    ),
    "rotation that erases a past key": (
        rotate_and_erase,
        [
            ("enc", "generated", "future"),
            ("enc", "retired", "past"),
            ("enc", "activated", "current"),
            ("enc", "generated", "future"),
            ("enc", "erased", "past"),
        ],
    ),
    "activation": (
        key_command("activate", "--kid", "{kid}", "--force", status="future"),
        [("sig", "retired", "past"), ("sig", "activated", "current")],
    ),
    "revocation by the command": (
        key_command("revoke", "--kid", "{kid}"),
        [("sig", "revoked", "revoked"), ("sig", "activated", "current"), ("sig", "generated", "future")],
    ),
    "revocation in the admin": (
        lambda d: d.post(revoke_url(d.key(SIG, "current").kid), reason="stolen"),
        [("sig", "revoked", "revoked"), ("sig", "activated", "current"), ("sig", "generated", "future")],
    ),
    "replacement of all keys": (
        key_command("after-restore", "--yes"),
        [
            ("sig", "revoked", "revoked"),
            ("sig", "revoked", "revoked"),
            ("enc", "revoked", "revoked"),
            ("sig", "generated", "current"),
            ("sig", "generated", "future"),
            ("enc", "generated", "current"),
        ],
    ),
    "resealing": (
        reseal,
        [("sig", "resealed", "current"), ("sig", "resealed", "future"), ("enc", "resealed", "current")],
    ),
    "deletion of a row": (
        lambda d: d.key(SIG, "future").delete(),
        [("sig", "deleted", "future")],
    ),
    "deletion of rows by a queryset": (
        lambda d: Key.objects.filter(status="future").delete(),
        [("sig", "deleted", "future")],
    ),
}


class TestKeyChanged:
    @pytest.mark.parametrize("way", WAYS_TO_CHANGE_KEYS)
    def test_each_way_to_change_keys_sends_the_signal_for_each_change(self, way, deployment):
        change, expected = WAYS_TO_CHANGE_KEYS[way]

        with received(signals.key_changed) as facts:
            change(deployment)

        changes = [(sent["use"], sent["change"], sent["status"]) for sent in facts]
        assert sorted(changes) == sorted(expected)

    def test_list_of_keys_and_rotation_that_is_not_due_send_no_signal(self):
        call_command("instaccess_keys", "rotate")

        with received(signals.key_changed) as facts:
            call_command("instaccess_keys", "list")
            call_command("instaccess_keys", "rotate")

        assert facts == []

    def test_facts_of_a_revocation_have_the_reason_and_the_operator(self, deployment):
        kid = deployment.key(SIG, "current").kid

        with received(signals.key_changed) as facts:
            keys.revoke(kid, reason="laptop stolen", by=deployment.superuser)

        revoked, *others = facts
        assert revoked == {
            "kid": kid,
            "use": "sig",
            "change": signals.KeyChange.REVOKED,
            "status": "revoked",
            "has_private": False,
            "reason": "laptop stolen",
            "by": "root",
            "by_user_id": deployment.superuser.pk,
        }
        assert {(sent["reason"], sent["by"], sent["by_user_id"]) for sent in others} == {("", "", None)}

    def test_receiver_reads_the_new_keys_and_not_the_cached_keys(self, deployment):
        keys.current_ring()
        current: list[str] = []

        def receive(**facts: Any) -> None:
            current.append(keys.current_ring().signing_key().kid)

        with connected(signals.key_changed, receive):
            keys.rotate(SIG, force=True)

        assert set(current) == {deployment.key(SIG, "current").kid}

    def test_change_that_is_rolled_back_sends_no_signal(self):
        with received(signals.key_changed) as facts, store.locked() as stored:
            store.erase(stored.get(use=SIG, status="future"))
            transaction.set_rollback(True)

        assert facts == []

    def test_failing_receiver_does_not_stop_a_rotation(self, deployment, caplog):
        def fail(**facts: Any) -> None:
            raise RuntimeError

        before = deployment.key(SIG, "current").kid
        with connected(signals.key_changed, fail):
            keys.rotate(SIG, force=True)

        assert deployment.key(SIG, "past").kid == before
        assert "fail of signal key_changed failed: RuntimeError" in caplog.text

    def test_no_fact_contains_key_material(self, deployment):
        with received(signals.key_changed) as facts:
            keys.generate(SIG)
            keys.rotate(SIG, force=True)

        stored = Key.objects.values_list("public_jwk", "sealed_private_jwk")
        secrets_ = {part for public, sealed in stored for part in [public["n"], *filter(None, sealed.split("."))]}
        assert not any(secret in repr(facts) for secret in secrets_)
        assert json.loads(json.dumps(facts)) == facts
