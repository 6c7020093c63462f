"""In a project with a user model, an Application and an AccessToken of its own (tests/projects/swapped)."""

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
    def test_are_the_ones_in_use(self, facts):
        assert facts["models"] == ["swapped.Person", "swapped.Tool", "swapped.Pass"]

    def test_pass_the_system_checks(self, facts):
        assert "no issues" in facts["checks"]

    def test_get_tokens(self, facts):
        assert facts["status"] == 201

    def test_get_them_with_two_queries(self, facts):
        assert facts["queries"] == 2

    def test_are_what_the_audit_points_to(self, facts):
        assert facts["audit"] == [True, True, True]
        assert facts["access_token_pk"]


class TestAUserModelWithAUuidField:
    def test_gives_the_subject(self, facts):
        assert facts["sub_is_the_field"]

    def test_needs_no_identity_of_ours(self, facts):
        assert facts["identities"] == 0


class TestAnApplicationModelThatSaysItIsNotUsable:
    def test_p6_gets_no_token_and_no_word_why(self, facts):
        invalid = '{"errors":[{"message":"Invalid access token."}]}'

        assert facts["disabled"] == [401, invalid, invalid]
