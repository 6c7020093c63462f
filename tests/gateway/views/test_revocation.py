"""Tests that the gateway refuses revoked tokens within five seconds."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone

from instaccess import audit
from instaccess.issuer import issuing
from instaccess.keys import keks_for_revocation, lifecycle, provision
from instaccess.models import IssuedToken, Key
from tests.support.answers import INVALID, answer
from tests.support.verifying import status, verify

pytestmark = pytest.mark.django_db


class TestARevocation:
    """Tests that a revocation takes effect in the gateway within five seconds (cases G11, G21 and G33)."""

    @pytest.fixture
    def refused_in_five_seconds(self, clock):
        def refused(text: str) -> bool:
            clock.advance(5)
            return answer(verify(text)) == INVALID

        return refused

    def test_g11_gateway_refuses_a_token_whose_jti_was_revoked(self, clock, issue, refused_in_five_seconds):
        (row, text), (_, other) = issue(), issue()
        assert status(text) == status(other) == 204

        call_command("instaccess_tokens", "revoke", "--jti", str(row.jti), "--reason", "lost")

        assert refused_in_five_seconds(text)
        assert status(other) == 204

    def test_g11_gateway_reads_the_deny_list_at_most_once_per_deny_list_seconds(self, clock, issue, settings):
        settings.INSTACCESS = {"DENY_LIST_SECONDS": 4, "KEY_CACHE_SECONDS": 5}
        row, text = issue()
        assert status(text) == 204
        call_command("instaccess_tokens", "revoke", "--jti", str(row.jti), "--reason", "lost")

        clock.advance(3.9)
        assert status(text) == 204
        clock.advance(0.2)
        assert answer(verify(text)) == INVALID

    def test_g21_gateway_refuses_all_tokens_of_a_user_whose_tokens_were_revoked(
        self, clock, issue, refused_in_five_seconds
    ):
        grace = get_user_model().objects.create_user("grace")
        (_, first), (_, second), (_, other) = issue(), issue(), issue(user=grace)
        assert [status(text) for text in (first, second, other)] == [204] * 3

        call_command("instaccess_tokens", "revoke", "--user", "ada", "--reason", "left")

        assert refused_in_five_seconds(first)
        assert answer(verify(second)) == INVALID
        assert status(other) == 204

    def test_g21_gateway_refuses_all_tokens_of_an_application_whose_tokens_were_revoked(
        self, clock, issue, application, refused_in_five_seconds
    ):
        (_, first), (_, second), (_, other) = issue(application=application), issue(application=application), issue()
        assert [status(text) for text in (first, second, other)] == [204] * 3

        call_command("instaccess_tokens", "revoke", "--application", application.client_id, "--reason", "sold")

        assert refused_in_five_seconds(first)
        assert answer(verify(second)) == INVALID
        assert status(other) == 204

    def test_g21_gateway_refuses_all_tokens_of_an_account_whose_tokens_were_revoked(
        self, clock, issue, refused_in_five_seconds
    ):
        (row, first), (_, other) = issue(), issue(origin=issuing.Origin(canvas_domain="other.example.edu"))
        assert status(first) == status(other) == 204

        call_command("instaccess_tokens", "revoke", "--account", row.account_uuid, "--reason", "closed")

        assert refused_in_five_seconds(first)
        assert status(other) == 204

    @pytest.mark.parametrize("use", [Key.Use.SIGNING, Key.Use.ENCRYPTION])
    def test_g21_gateway_refuses_all_tokens_of_a_revoked_key(self, clock, issue, refused_in_five_seconds, use):
        if use == Key.Use.ENCRYPTION:
            provision.generate(use)
        (row, first), (_, second) = issue(), issue()
        assert status(first) == status(second) == 204

        lifecycle.revoke(row.signing_kid if use == Key.Use.SIGNING else row.encryption_kid, reason="stolen")

        assert refused_in_five_seconds(first)
        assert answer(verify(second)) == INVALID
        assert status(issue()[1]) == 204

    def test_g33_gateway_refuses_tokens_of_a_revoked_user_before_the_audit_rows_are_marked(
        self, clock, issue, refused_in_five_seconds
    ):
        _, text = issue()
        assert status(text) == 204

        audit.record_revocation(
            audit.scopes_of_user("ada"),
            keks=keks_for_revocation(),
            reason="left",
            now=timezone.now(),
            latest_iat=int(time.time()),
        )

        assert refused_in_five_seconds(text)
        assert not IssuedToken.objects.exclude(revoked_at=None).exists()

    def test_g21_gateway_refuses_a_token_with_which_a_revoked_user_masquerades(
        self, clock, issue, user, refused_in_five_seconds
    ):
        grace = get_user_model().objects.create_user("grace")
        (_, masquerade), (_, other) = issue(user=grace, real_user=user), issue(user=grace)
        assert status(masquerade) == status(other) == 204

        call_command("instaccess_tokens", "revoke", "--user", "ada", "--reason", "left")

        assert refused_in_five_seconds(masquerade)
        assert status(other) == 204

    def test_gateway_accepts_a_token_that_is_issued_after_all_tokens_of_the_user_were_revoked(self, clock, issue):
        issue()
        call_command("instaccess_tokens", "revoke", "--user", "ada", "--reason", "left")

        assert status(issue(now=time.time() + 1)[1]) == 204

    def test_gateway_refuses_a_revoked_token_that_was_never_cached(self, clock, issue, refused_in_five_seconds):
        row, text = issue()
        call_command("instaccess_tokens", "revoke", "--jti", str(row.jti), "--reason", "lost")

        assert refused_in_five_seconds(text)
