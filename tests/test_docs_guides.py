"""Tests that run the code of docs/local-development.md, docs/migration.md and docs/api.md."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import override_settings
from django.urls import resolve

from instaccess import users
from instaccess.conf import checks as conf_checks
from instaccess.models import IssuedToken
from instaccess.service import TokenUser
from instaccess.service.local_tables import local_tables
from tests.service import helpers
from tests.support import readme
from tests.support.snippets import code_of, run, send, shell_lines
from tests.support.tokens import ISSUER as CANVAS
from tests.support.tokens import TokenFactory, claims

LOCAL = readme.page("local-development.md")
API = readme.page("api.md")


@pytest.mark.django_db
class TestTheGuideToDevelopmentWithoutAGateway:
    SIGNED, USE, VERIFY = shell_lines(LOCAL)

    def settings(self) -> Any:
        names = run(code_of(LOCAL, "ALLOW_UNENCRYPTED"))
        assert names["DEBUG"] is True
        return override_settings(DEBUG=True, INSTACCESS=names["INSTACCESS"])

    def test_settings_in_the_guide_to_local_development_pass_the_system_checks(self):
        with self.settings():
            assert conf_checks.check_settings() == []

    def test_service_accepts_the_token_of_the_documented_request(self, client, access_token, user, initial_keys):
        with self.settings():
            signed = send(client, self.SIGNED, ACCESS_TOKEN=access_token.token).json()["token"]

        assert signed.count(".") == 2
        assert send(client, self.USE, SIGNED_TOKEN=signed).json()["login_id"] == user.get_username()

    def test_documented_request_gets_an_encrypted_token_without_the_documented_setting(
        self, client, access_token, initial_keys
    ):
        token = send(client, self.SIGNED, ACCESS_TOKEN=access_token.token).json()["token"]

        assert token.count(".") == 4

    def test_encrypted_token_is_refused_by_a_service_with_the_documented_reason(
        self, client, access_token, initial_keys, caplog
    ):
        token = send(client, self.SIGNED, ACCESS_TOKEN=access_token.token).json()["token"]

        assert send(client, self.USE, SIGNED_TOKEN=token).status_code == 401
        [reason] = [record.reason for record in caplog.records if record.name == "instaccess.service"]
        assert f"the reason `{reason}`" in " ".join(LOCAL.split())

    def test_gateway_answers_the_documented_request_with_the_signed_token(
        self, client, access_token, user, initial_keys
    ):
        token = send(client, self.SIGNED, ACCESS_TOKEN=access_token.token).json()["token"]
        answer = send(client, self.VERIFY, INST_ACCESS_TOKEN=token)
        signed = answer.headers["Authorization"].removeprefix("Bearer ")

        assert answer.status_code == 204
        assert send(client, self.USE, SIGNED_TOKEN=signed).json()["login_id"] == user.get_username()

    def test_documented_test_of_a_view_passes(self, user):
        run(code_of(LOCAL, "force_authenticate"))["test_user_sees_their_own_name"](user)

    def test_documented_test_with_a_real_token_passes(self, user, client):
        # Remove the decorator, because pytest refuses to call a fixture like a function.
        names = run(code_of(LOCAL, "def signed_token").replace("@pytest.fixture\n", ""))

        names["test_service_accepts_a_token"](client, names["signed_token"](None, user))


class TestTheGuideToMigration:
    """Tests of a service at each step of the migration, with a key of Canvas and a key of the new issuer."""

    MIGRATION = readme.page("migration.md")
    OWN = "https://api.example.edu"
    FIRST, ISSUER, BOTH, LAST = (
        run(each.code)["INSTACCESS"] for each in readme.snippets(MIGRATION) if each.language == "python"
    )

    @pytest.fixture
    def send_token(self, rsa_pool, tmp_path, monkeypatch) -> Any:
        """Return a function that sends a token of an issuer to a service, and returns the status of the response.

        The keys are in files, as in the guide. Only the folder of the files differs.
        """
        monkeypatch.setattr(local_tables, "is_usable_client", None)
        factories = {
            issuer: TokenFactory(rsa_pool.take("sig"), rsa_pool.take("enc")) for issuer in (CANVAS, self.OWN)
        }
        (tmp_path / "canvas.pub.pem").write_text(helpers.public(factories[CANVAS]))
        (tmp_path / "own.jwks.json").write_bytes(helpers.jwks(factories[self.OWN].signing))

        def send_token(documented: dict[str, Any], issuer: str) -> int:
            files = [path.replace("/etc/instaccess", str(tmp_path)) for path in documented["VERIFICATION_KEYS"]]
            kid = {} if issuer == self.OWN else {"kid": ...}
            payload = claims(helpers.now(), iss=issuer, acct=documented["ACCOUNT_UUID"])
            token = factories[issuer].signed(payload, **kid)
            with override_settings(INSTACCESS=documented | {"VERIFICATION_KEYS": files, "USER_HOOK": TokenUser}):
                return int(helpers.ask(f"Bearer {token}").status_code)

        return send_token

    def test_service_accepts_only_the_tokens_of_canvas_after_the_first_step(self, send_token):
        assert [send_token(self.FIRST, issuer) for issuer in (CANVAS, self.OWN)] == [200, 401]

    def test_service_accepts_the_tokens_of_both_issuers_after_the_third_step(self, send_token):
        assert [send_token(self.BOTH, issuer) for issuer in (CANVAS, self.OWN)] == [200, 200]

    def test_settings_of_the_new_issuer_and_of_its_services_agree(self):
        for name in ("ISSUER", "ACCOUNT_UUID"):
            assert len({documented[name] for documented in (self.ISSUER, self.BOTH, self.LAST)}) == 1

    def test_last_step_removes_the_issuer_and_the_key_of_canvas(self):
        assert "ACCEPTED_ISSUERS" not in self.LAST
        assert resolve(urlsplit(self.LAST["VERIFICATION_KEYS"]).path).url_name == "instaccess-jwks"


@pytest.mark.django_db
class TestThePageOfThePythonApi:
    def test_documented_function_issues_a_token(self, user, initial_keys):
        token = run(code_of(API, "def issue_for"))["issue_for"](user)

        assert token.count(".") == 4
        assert IssuedToken.objects.count() == 1

    def test_documented_function_revokes_the_tokens_of_a_user(self, user, initial_keys):
        run(code_of(API, "def issue_for"))["issue_for"](user)

        revoked = run(code_of(API, "def revoke_all"))["revoke_all"](users.user_uuid(user))

        assert revoked == 1
        assert IssuedToken.objects.get().revocation_reason == "contract ended"

    def test_names_on_the_page_of_the_python_api_exist(self):
        for module, name in re.findall(r":: (instaccess(?:\.[a-z]+)+)\.(\w+)$", API, re.MULTILINE):
            assert getattr(__import__(module, fromlist=[name]), name), name
