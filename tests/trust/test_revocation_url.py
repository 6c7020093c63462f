"""Tests of the pages of revocations that a gateway reads from a URL: default values, size limit and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from instaccess.exceptions import ConfigError, SourceUnavailable
from instaccess.trust import Page, denylist, revocation_url
from tests.support.servers import ScriptedServer, reply, scripted_server

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def server(settings: Any) -> Iterator[ScriptedServer]:
    with scripted_server(lambda handler: reply(handler, 200, b'{"revoked": []}')) as server:
        settings.INSTACCESS = {"DENY_LIST": server.base_url, "SERVICE_SECRETS": [SECRET], "ALLOW_HTTP_URLS": True}
        yield server


class TestAPageOfRevocationsFromAURL:
    def test_page_has_no_revocations_if_the_document_has_only_the_required_member(self, server):
        assert revocation_url.read() == Page(tokens=[], keys=[])

    def test_page_has_all_members_of_the_document(self, server):
        document = {
            "revoked": ["t"],
            "revoked_keys": ["k"],
            "revoked_users": {"u": 1},
            "revoked_accounts": {"a": 2},
            "revoked_until": 3,
            "cursor": "4",
            "more": True,
            "position_lost": True,
        }
        server.answer_with(200, json.dumps(document).encode(), ETag='"e"')

        assert revocation_url.read() == Page(["t"], {"u": 1}, {"a": 2}, ["k"], 3, "4", True, '"e"', True)

    def test_page_of_16_mebibytes_is_read_and_a_larger_page_is_refused(self, server):
        body = b'{"revoked": []}'.ljust(16 * 1024 * 1024)
        server.answer_with(200, body)
        assert revocation_url.read() == Page(tokens=[], keys=[])

        server.answer_with(200, body + b" ")
        with pytest.raises(SourceUnavailable, match="sent more than 16777216 bytes"):
            revocation_url.read()

    def test_error_of_a_missing_secret_names_the_setting(self, server, settings):
        settings.INSTACCESS = {**settings.INSTACCESS, "SERVICE_SECRETS": []}

        with pytest.raises(ConfigError) as caught:
            revocation_url.read()
        assert caught.value.setting == "SERVICE_SECRETS"


class TestTheDenyListOfAURL:
    @pytest.fixture(autouse=True)
    def empty_caches(self) -> Iterator[None]:
        denylist.clear_cache()
        yield
        denylist.clear_cache()

    def test_deny_list_has_no_age_and_no_sizes_before_its_first_load(self, server):
        assert denylist.age() is None
        assert denylist.sizes() == {}

    def test_deny_list_has_an_age_and_sizes_after_its_first_load(self, server):
        server.answer_with(200, b'{"revoked": ["one", "two"], "revoked_keys": ["k"]}')
        denylist.current()

        age = denylist.age()
        assert age is not None
        assert age >= 0
        assert denylist.sizes() == {"token": 2, "user": 0, "account": 0, "key": 1}

    def test_no_lost_revocations_are_logged_if_the_document_reports_no_lost_position(self, server, caplog):
        denylist.current()

        assert "no longer contains" not in caplog.text

    def test_first_page_is_requested_again_after_the_cache_was_cleared(self, server):
        denylist.current()
        denylist.clear_cache()
        denylist.current()

        assert len(server.requests) == 2

    @pytest.mark.django_db
    def test_deny_list_setting_is_compared_by_value_and_not_by_identity(self, settings):
        # `json.loads` returns a new string, so a comparison with `is` would fail.
        settings.INSTACCESS = {"DENY_LIST": json.loads('"database"')}

        assert denylist.current() == set()
