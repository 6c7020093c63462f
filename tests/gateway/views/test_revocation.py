"""`/internal/gateway/verify` refuses revoked tokens within seconds."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command

from instaccess.issuer import issuing
from instaccess.keys import lifecycle
from instaccess.models import IssuedToken, Key
from tests.support.answers import INVALID, answer
from tests.support.verifying import status, verify

pytestmark = pytest.mark.django_db


class TestARevocation:
    """G11, G21: refused by a worker that has opened and remembers the token, five seconds later."""

    @pytest.fixture
    def refused_in_five_seconds(self, clock):
        def refused(text: str) -> bool:
            clock.pass_(5)
            return answer(verify(text)) == INVALID

        return refused

    def test_g11_of_one_token_by_its_jti(self, clock, issue, refused_in_five_seconds):
        (row, text), (_, other) = issue(), issue()
        assert status(text) == status(other) == 204

        call_command("instaccess_tokens", "revoke", "--jti", str(row.jti), "--reason", "lost")

        assert refused_in_five_seconds(text)
        assert status(other) == 204

    def test_g11_is_not_asked_for_more_often_than_the_setting_says(self, clock, issue, settings):
        settings.INSTACCESS = {"DENY_LIST_SECONDS": 4, "KEY_CACHE_SECONDS": 5}
        row, text = issue()
        assert status(text) == 204
        IssuedToken.objects.filter(pk=row.pk).update(revoked_at=row.issued_at)

        clock.pass_(3.9)
        assert status(text) == 204
        clock.pass_(0.2)
        assert answer(verify(text)) == INVALID

    def test_g21_of_all_tokens_of_a_user(self, clock, issue, refused_in_five_seconds):
        somebody = get_user_model().objects.create_user("grace")
        (_, one), (_, two), (_, others) = issue(), issue(), issue(user=somebody)
        assert [status(text) for text in (one, two, others)] == [204] * 3

        call_command("instaccess_tokens", "revoke", "--user", "ada", "--reason", "left")

        assert refused_in_five_seconds(one)
        assert answer(verify(two)) == INVALID
        assert status(others) == 204

    def test_g21_of_all_tokens_of_an_application(self, clock, issue, application, refused_in_five_seconds):
        (_, one), (_, two), (_, others) = issue(application=application), issue(application=application), issue()
        assert [status(text) for text in (one, two, others)] == [204] * 3

        call_command("instaccess_tokens", "revoke", "--application", application.client_id, "--reason", "sold")

        assert refused_in_five_seconds(one)
        assert answer(verify(two)) == INVALID
        assert status(others) == 204

    def test_g21_of_all_tokens_of_an_account(self, clock, issue, refused_in_five_seconds):
        (row, one), (_, others) = issue(), issue(origin=issuing.Origin(canvas_domain="other.example.edu"))
        assert status(one) == status(others) == 204

        call_command("instaccess_tokens", "revoke", "--account", row.account_uuid, "--reason", "closed")

        assert refused_in_five_seconds(one)
        assert status(others) == 204

    @pytest.mark.parametrize("use", [Key.Use.SIGNING, Key.Use.ENCRYPTION])
    def test_g21_of_all_tokens_under_a_key(self, clock, issue, refused_in_five_seconds, use):
        if use == Key.Use.ENCRYPTION:
            from instaccess.keys import provision

            provision.generate(use)
        (row, one), (_, two) = issue(), issue()
        assert status(one) == status(two) == 204

        lifecycle.revoke(row.signing_kid if use == Key.Use.SIGNING else row.encryption_kid, reason="stolen")

        assert refused_in_five_seconds(one)
        assert answer(verify(two)) == INVALID
        assert status(issue()[1]) == 204

    def test_of_a_token_this_worker_has_never_seen_holds_too(self, clock, issue, refused_in_five_seconds):
        row, text = issue()
        call_command("instaccess_tokens", "revoke", "--jti", str(row.jti), "--reason", "lost")

        assert refused_in_five_seconds(text)
