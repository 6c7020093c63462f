"""Tests of `manage.py instaccess_tokens revoke --user … --oauth2-tokens`."""

from __future__ import annotations

import io
import json
import secrets
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from oauth2_provider.models import get_access_token_model, get_refresh_token_model

from instaccess import users
from instaccess.models import IssuedToken, Revocation

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def oauth2_tokens(make_access_token, user, application):
    """Create an access token and a refresh token of ada."""
    get_refresh_token_model().objects.create(
        user=user, application=application, token=secrets.token_urlsafe(), access_token=make_access_token()
    )


def revoke(*args: str) -> str:
    out = io.StringIO()
    call_command("instaccess_tokens", "revoke", "--reason", "laptop lost", *args, stdout=out)
    return out.getvalue()


def as_json(*args: str) -> Any:
    return json.loads(revoke(*args, "--json"))


def remaining() -> int:
    tokens = get_access_token_model().objects, get_refresh_token_model().objects.filter(revoked=None)
    return sum(each.count() for each in tokens)


class TestRevokeWithTheOptionOAuth2Tokens:
    def test_a21_revoke_with_the_option_oauth2_tokens_revokes_and_lists_the_oauth2_tokens(self, row, application):
        token = row(age=60)

        lines = revoke("--user", "ada", "--oauth2-tokens").splitlines()

        assert lines[:2] == [
            "Revoked 1 live tokens. Gateways refuse the tokens within 5 seconds.",
            "Revoked 2 OAuth2 tokens too.",
        ]
        used = f"{token.issued_at:%Y-%m-%dT%H:%M:%SZ}"
        assert lines[2] == f"  ada, LTI tool: 1 access token, 1 refresh token, last used {used}"
        assert lines[3].endswith("also change the user's password.")
        assert remaining() == 0
        assert IssuedToken.objects.get().revocation_reason == "laptop lost (2 OAuth2 tokens revoked too)"

    def test_a21_revoke_without_the_option_oauth2_tokens_lists_the_oauth2_tokens_and_names_the_option(self, row):
        row()

        text = revoke("--user", "ada")

        assert "2 OAuth2 tokens stay valid, so a client can get a new InstAccess token:\n  ada, LTI tool: " in text
        assert "run the command again with --oauth2-tokens" in text
        assert remaining() == 2

    def test_a21_revoke_of_a_user_uuid_revokes_the_oauth2_tokens(self, row, user):
        row()

        assert as_json("--user", users.user_uuid(user), "--oauth2-tokens")["revoked_oauth2_tokens"] == 2
        assert remaining() == 0

    def test_a21_json_of_revoke_lists_the_oauth2_tokens(self, row, application):
        token = row()
        listed = {
            "user": "ada",
            "application": "LTI tool",
            "client_id": application.client_id,
            "access_tokens": 1,
            "refresh_tokens": 1,
            "authorization_codes": 0,
            "device_codes": 0,
            "id_tokens": 0,
            "last_used": f"{token.issued_at:%Y-%m-%dT%H:%M:%SZ}",
        }

        kept = as_json("--user", "ada", "--dry-run")
        planned = as_json("--user", "ada", "--dry-run", "--oauth2-tokens")
        done = as_json("--user", "ada", "--oauth2-tokens")

        assert kept == {"would_revoke": 1, "oauth2_tokens": [listed]}
        assert planned == {"would_revoke": 1, "oauth2_tokens": [listed], "would_revoke_oauth2_tokens": 2}
        assert done == {"revoked": 1, "oauth2_tokens": [listed], "revoked_oauth2_tokens": 2}

    def test_a21_dry_run_lists_the_oauth2_tokens_and_revokes_no_oauth2_token(self, row):
        row()

        text = revoke("--user", "ada", "--oauth2-tokens", "--dry-run")

        assert text.startswith("1 live tokens would be revoked.\n2 OAuth2 tokens would be revoked too.\n  ada, LTI")
        assert remaining() == 2
        assert not Revocation.objects.exists()

    def test_a21_revoke_with_the_option_oauth2_tokens_succeeds_for_a_user_without_an_audit_row(self):
        assert as_json("--user", "ada", "--oauth2-tokens")["revoked_oauth2_tokens"] == 2
        assert remaining() == 0
        assert Revocation.objects.get().reason == "laptop lost (2 OAuth2 tokens revoked too)"

    def test_a21_revoke_with_the_option_oauth2_tokens_fails_for_an_unknown_user(self):
        with pytest.raises(CommandError, match="Check the spelling"):
            revoke("--user", "nobody", "--oauth2-tokens")

    @pytest.mark.parametrize("other", [("--application", "x"), ("--account", "3f1c"), ()])
    def test_a21_option_oauth2_tokens_is_refused_without_user_or_with_another_filter(self, other, row):
        token = row()
        filters = ("--user", "ada", *other) if other else ("--jti", str(token.jti))

        with pytest.raises(CommandError, match="--oauth2-tokens needs --user"):
            revoke(*filters, "--oauth2-tokens")

        assert remaining() == 2
        assert not IssuedToken.objects.exclude(revoked_at=None).exists()

    def test_a21_revoke_of_an_actor_revokes_only_the_oauth2_tokens_of_the_actor(self, row, user, make_access_token):
        grace = get_user_model().objects.create_user("grace")
        make_access_token(user=grace)
        row(user=grace, user_uuid=users.user_uuid(grace), real_user=user, real_user_uuid=users.user_uuid(user))

        assert as_json("--user", "ada", "--oauth2-tokens")["revoked"] == 1
        assert [token.user for token in get_access_token_model().objects.all()] == [grace]
