"""Tests of a service without the issuer's app: no tables, no OAuth2 provider, no database."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from django.test import override_settings

from instaccess import users
from tests.service.helpers import ADMIN, USER, good, issued, public
from tests.support import processes, readme, servers, subproject
from tests.support.answers import CHALLENGE, INVALID
from tests.support.paths import ROOT

SERVICE_SNIPPET = next(s.code for s in readme.snippets(readme.page("services.md")) if s.language == "python")


class TestAServiceWithoutTheIssuersApp:
    """Tests of a separate project in a separate process, with the settings of docs/services.md."""

    ACCOUNT = "0c1b3e1c-2f0e-4c5b-9a51-6f3d1f6f2a10"

    def ask_project(self, authorizations: list[str], **instaccess: Any) -> Any:
        """Send one request with each Authorization header to the project.

        Returns the responses, the messages of the system checks, and the loaded modules.
        """
        return subproject.run_with_question(
            "tests.projects.serviceproject.ask",
            settings="tests.projects.serviceproject.settings",
            question={"snippet": SERVICE_SNIPPET, "instaccess": instaccess, "authorizations": authorizations},
        )

    def test_service_without_the_app_accepts_tokens_with_pem_keys(self, token_factory):
        masquerade = good(token_factory, sub=USER, acct=self.ACCOUNT, masq_sub=ADMIN, masq_shard=1)
        expired = good(token_factory, acct=self.ACCOUNT, iat=1, exp=2)

        result = self.ask_project(
            [masquerade, good(token_factory), expired, "Bearer opaque"], VERIFICATION_KEYS=[public(token_factory)]
        )

        first, *refused, anonymous = result["answers"]
        assert first == [200, {"user": USER, "type": "TokenUser", "behind": ADMIN}, None]
        assert refused == [[401, json.loads(INVALID[1]), CHALLENGE]] * 2
        assert (anonymous[0], anonymous[2]) == (401, CHALLENGE)

    def test_service_without_the_app_loads_no_models_and_no_oauth2_provider(self, token_factory):
        result = self.ask_project([good(token_factory, acct=self.ACCOUNT)], VERIFICATION_KEYS=[public(token_factory)])

        assert result["answers"][0][0] == 200
        assert result["loaded"] == []

    def test_c17_service_without_contrib_auth_returns_401_if_the_anonymous_user_is_none(self, token_factory):
        result = self.ask_project([""], VERIFICATION_KEYS=[public(token_factory)])

        assert (result["answers"][0][0], result["checks"]) == (401, [])

    def test_c17_check_of_a_service_without_contrib_auth_names_the_setting_of_the_anonymous_user(self, token_factory):
        result = subproject.run_with_question(
            "tests.projects.serviceproject.ask",
            settings="tests.projects.serviceproject.settings",
            question={
                "snippet": SERVICE_SNIPPET,
                "instaccess": {"VERIFICATION_KEYS": [public(token_factory)]},
                "rest_framework": {},
                "authorizations": [],
            },
        )

        [(check_id, hint)] = result["checks"]
        assert check_id == "instaccess.E061"
        assert "REST_FRAMEWORK['UNAUTHENTICATED_USER'] to None" in hint

    @pytest.mark.django_db(transaction=True)
    def test_service_without_the_app_accepts_tokens_with_the_jwks_of_an_issuer_in_another_process(
        self, initial_keys, user, tmp_path
    ):
        port = servers.free_port()
        command = [sys.executable, "manage.py", "runserver", "--noreload", f"{servers.HOST}:{port}"]
        with override_settings(INSTACCESS={"ACCOUNT_UUID": self.ACCOUNT}):
            token = issued(user)
        issuer = servers.Process(command, port=port, log=tmp_path / "log", env=processes.environment(), cwd=ROOT)
        try:
            url = f"http://{servers.HOST}:{port}/internal/services/jwks"
            result = self.ask_project([token, token[:-4] + "AAAA"], VERIFICATION_KEYS=url, ALLOW_HTTP_URLS=True)
        finally:
            issuer.kill()

        assert result["answers"][0] == [
            200,
            {"user": users.user_uuid(user), "type": "TokenUser", "behind": None},
            None,
        ]
        assert result["answers"][1][0] == 401
