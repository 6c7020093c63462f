"""Tests of the issuer in a project with custom user, Application and AccessToken models (tests/projects/swapped)."""

from __future__ import annotations

import pytest

from tests.support import subproject


@pytest.fixture(scope="module")
def facts(tmp_path_factory, _rsa_pool):
    _rsa_pool.rewind()
    folder = tmp_path_factory.mktemp("swapped")
    return subproject.run(
        "tests.projects.swapped.issue", settings="tests.projects.swapped.settings", folder=folder, rsa_pool=_rsa_pool
    )


class TestSwappedModels:
    def test_swapped_models_are_in_use(self, facts):
        assert facts["models"] == ["swapped.Person", "swapped.Tool", "swapped.Pass"]

    def test_system_checks_pass_if_models_are_swapped(self, facts):
        assert "no issues" in facts["checks"]

    def test_tokens_are_issued_if_models_are_swapped(self, facts):
        assert facts["status"] == 201

    def test_issuing_takes_two_queries_if_models_are_swapped(self, facts):
        assert facts["queries"] == 2

    def test_audit_rows_refer_to_the_swapped_models(self, facts):
        assert facts["audit"] == [True, True, True]
        assert facts["access_token_pk"]


class TestAnExpiredAccessToken:
    def test_p2_swapped_refresh_token_decides_whether_the_token_can_be_refreshed(self, facts):
        assert facts["refresh_token_model"] == "swapped.RefreshToken"
        assert facts["expired"] == ["Expired access token.", "Invalid access token."]


class TestRevokingOAuth2TokensOfSwappedModels:
    def test_a21_command_revokes_the_tokens_and_oauth2_tokens_of_swapped_models(self, facts):
        # The user has two live tokens, three unexpired access tokens, a refresh token, a code and an ID token.
        assert facts["revoked"] == [2, 6]
        assert facts["after_revocation"] == [401, 0, 0, 0]


class TestAUserModelWithAUuidField:
    def test_uuid_field_of_a_swapped_user_model_is_the_subject_of_its_tokens(self, facts):
        assert facts["sub_is_the_field"]

    def test_no_identity_is_created_for_a_user_with_a_uuid_field(self, facts):
        assert facts["identities"] == 0


class TestAnApplicationModelThatIsNotUsable:
    def test_p6_refusal_of_a_token_of_an_unusable_application_does_not_contain_the_reason(self, facts):
        invalid = '{"errors":[{"message":"Invalid access token."}]}'

        assert facts["disabled"] == [401, invalid, invalid]
