"""Tests of the work that remains after the revocation of a key, on the confirmation page and on the key page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from instaccess.keys import lifecycle, provision, remaining_work
from instaccess.models import Key
from instaccess.trust import material
from tests.admin.keys.helpers import ENC, LIST, SIG, START, key_of, page_text, revoke_url
from tests.support import key_texts
from tests.support.stored_keys import write

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

HEADING = "What remains to do after a revocation"
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _stopped_clock(clock: Any) -> None:
    """Stop the clock at `START`."""


@pytest.fixture
def page_at(clock: Any, operator_client: Any) -> Any:
    """Return a function that moves the clock to a time after `START` and returns the text of the key page."""

    def load(after: timedelta) -> str:
        clock.move_to(START + after)
        operator_client.force_login(get_user_model().objects.get(username="grace"))
        return page_text(operator_client.get(LIST))

    return load


def remaining(client: Any) -> Any:
    """Return the remaining work that the key page shows for the only key that was revoked recently."""
    [revoked] = client.get(LIST).context["revoked_keys"]
    return revoked


class TestTheKeyPageAfterARevocation:
    def test_key_page_shows_no_remaining_work_before_a_revocation(self, operator_client):
        assert HEADING not in page_text(operator_client.get(LIST))

    @pytest.mark.parametrize("use", [SIG, ENC])
    def test_key_page_repeats_every_instruction_of_the_confirmation_page(self, use, operator_client):
        kid = key_of(use, "current").kid
        confirmation = page_text(operator_client.post(revoke_url(kid)))
        lifecycle.revoke(kid)
        page = page_text(operator_client.get(LIST))
        texts = [str(step.text) for step in remaining(operator_client).steps]

        assert texts == [str(text) for text in remaining_work(use)]
        assert all(text in confirmation and text in page for text in texts)
        assert f"key {kid[:8]} was revoked at 2026-11-23 12:00:00 UTC." in page

    def test_remaining_work_of_a_signing_key_names_the_time_until_which_services_accept_its_tokens(
        self, operator_client, page_at
    ):
        lifecycle.revoke(key_of(SIG, "current").kid)

        assert "may accept tokens of this key until 2026-11-23 12:05:03 UTC." in page_at(302 * SECOND)
        assert "This period ended at 2026-11-23 12:05:03 UTC." in page_at(303 * SECOND)

    def test_time_until_which_services_accept_tokens_depends_on_the_setting_jwks_max_age(
        self, operator_client, settings
    ):
        settings.INSTACCESS = {"JWKS_MAX_AGE": 3600, "KEY_LEAD_SECONDS": 7200}
        lifecycle.revoke(key_of(SIG, "current").kid)

        assert "until 2026-11-23 13:00:03 UTC" in remaining(operator_client).steps[0].deadline

    def test_remaining_work_of_a_signing_key_contains_the_commands_that_print_the_new_public_keys(
        self, operator_client
    ):
        lifecycle.revoke(key_of(SIG, "current").kid)
        page = page_text(operator_client.get(LIST))

        for status in ("current", "future"):
            command = f"python manage.py instaccess_keys export --kid {key_of(SIG, status).kid}"
            assert f"<code>{command}</code>" in page
        assert "VERIFICATION_KEYS" in page
        assert "Until you do this step" in page

    def test_remaining_work_of_an_encryption_key_contains_the_command_that_exports_the_new_private_key(
        self, operator_client
    ):
        lifecycle.revoke(key_of(ENC, "current").kid)
        [step] = remaining(operator_client).steps

        assert "DECRYPTION_KEYS" in str(step.text)
        assert step.commands[0] == (
            f"python manage.py instaccess_keys export --private --kid {key_of(ENC, 'current').kid} --file PATH"
        )

    @pytest.mark.parametrize("revoked", ["current", "past"])
    def test_remaining_work_for_the_key_of_a_gateway_in_another_deployment_contains_no_command(
        self, revoked, operator_client, rsa_pool
    ):
        Key.objects.filter(use=ENC).delete()
        for _ in range(2):
            public = material.to_text(rsa_pool.take(), file_format="pem")
            lifecycle.activate(key_texts.import_key(public, use=ENC).kid)
        provision.generate(ENC)
        lifecycle.revoke(key_of(ENC, revoked).kid)

        [step] = remaining(operator_client).steps
        assert (step.label, step.commands) == ("", ())

    def test_key_page_shows_the_remaining_work_for_a_day(self, operator_client, page_at):
        lifecycle.revoke(key_of(SIG, "current").kid)

        assert "This page shows this note until 2026-11-24 12:00:00 UTC." in page_at(timedelta(days=1) - SECOND)
        assert HEADING not in page_at(timedelta(days=1))

    def test_key_page_shows_the_remaining_work_until_services_no_longer_accept_the_tokens(
        self, operator_client, page_at, settings
    ):
        settings.INSTACCESS = {"JWKS_MAX_AGE": 86_400, "KEY_ROTATION_DAYS": 2}
        lifecycle.revoke(key_of(SIG, "current").kid)

        assert HEADING in page_at(timedelta(days=1))
        assert HEADING not in page_at(timedelta(days=1, seconds=3))

    def test_key_page_shows_the_remaining_work_for_a_day_even_if_keys_rotate_every_day(
        self, operator_client, page_at, settings
    ):
        settings.INSTACCESS = {"KEY_ROTATION_DAYS": 1}
        lifecycle.revoke(key_of(SIG, "current").kid)

        assert HEADING in page_at(timedelta(hours=23))

    def test_key_page_shows_the_remaining_work_to_users_who_may_only_view_keys(self, client, make_operator):
        lifecycle.revoke(key_of(SIG, "current").kid)
        client.force_login(make_operator("view_key"))

        assert HEADING in page_text(client.get(LIST))

    def test_key_page_shows_the_remaining_work_of_five_keys_and_counts_the_other_keys(self, operator_client):
        write(
            Key(kid=f"{n:08}", use=SIG, status="revoked", public_jwk={}, revoked_at=START - n * SECOND)
            for n in range(7)
        )
        page = page_text(operator_client.get(LIST))

        titles = [revoked.title for revoked in operator_client.get(LIST).context["revoked_keys"]]
        assert [title.split()[3] for title in titles] == [f"{n:08}" for n in range(5)]
        assert "2 more keys were revoked recently. The same steps apply to these keys." in page

    def test_k17_remaining_work_contains_no_command_with_a_kid_that_contains_shell_syntax(
        self, operator_client, settings
    ):
        lifecycle.revoke(key_of(SIG, "current").kid)
        Key.objects.filter(use=SIG, status="current").update(kid="$(reboot)")
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43]}

        assert "instaccess_keys export --kid $(reboot)" not in page_text(operator_client.get(LIST))

    def test_key_page_runs_the_same_number_of_queries_after_a_revocation_as_before(self, operator_client):
        operator_client.get(LIST)
        with CaptureQueriesContext(connection) as before:
            operator_client.get(LIST)
        lifecycle.revoke(key_of(SIG, "current").kid)
        with CaptureQueriesContext(connection) as after:
            operator_client.get(LIST)

        assert len(before) == len(after)
