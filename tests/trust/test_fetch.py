"""Tests of fetching a JSON document: the exact limits of size and time, the reported errors, and `max-age`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from instaccess.exceptions import SourceUnavailable
from instaccess.opaque import OpaqueText
from instaccess.trust import fetch
from tests.support.clocks import Clock
from tests.support.servers import ScriptedServer, reply, scripted_server

SECRET = OpaqueText("0123456789abcdef0123456789abcdef")
MEBIBYTE = 1024 * 1024


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server(lambda handler: reply(handler, 200, b"[]")) as server:
        yield server


def error(server: ScriptedServer, **options: Any) -> str:
    """Fetch the document of the server, expect an error, and return the message of the error."""
    with pytest.raises(SourceUnavailable) as caught:
        fetch.fetch_json(server.base_url, **options)
    return caught.value.detail


class TestTheSizeOfADocument:
    def test_document_of_four_mebibytes_is_read_and_a_larger_document_is_refused(self, server):
        body = b"[]".ljust(4 * MEBIBYTE)
        server.answer_with(200, body)
        assert fetch.fetch_json(server.base_url).document == []

        server.answer_with(200, body + b" ")
        assert error(server) == f"{server.base_url} sent more than 4194304 bytes"

    def test_document_that_is_larger_than_the_caller_allows_is_refused(self, server):
        assert fetch.fetch_json(server.base_url, max_bytes=2).document == []

        assert error(server, max_bytes=1) == f"{server.base_url} sent more than 1 bytes"


@pytest.mark.usefixtures("real_fetch_limits")
class TestTheTimeOfAFetch:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock(frozen=True)
        monkeypatch.setattr(fetch, "time", clock)
        # The clock simulates the time limit of the whole body. The limit for the next bytes counts in real time, so a
        # busy machine could exceed this limit.
        monkeypatch.setattr(fetch, "TIMEOUT", 60)
        return clock

    def test_document_that_arrives_within_three_seconds_is_read(self, server, clock):
        def answer(handler: Any) -> None:
            clock.advance(3)
            reply(handler, 200, b"[7]")

        server.answer = answer

        assert fetch.fetch_json(server.base_url).document == [7]

    def test_document_that_takes_longer_than_three_seconds_is_refused(self, server, clock):
        def answer(handler: Any) -> None:
            clock.advance(3.125)
            reply(handler, 200, b"[7]")

        server.answer = answer

        assert error(server) == f"{server.base_url} took longer than 3.0 s"

    def test_fetch_waits_at_most_one_second_for_the_next_bytes(self, server):
        release = threading.Event()
        server.answer = lambda handler: release.wait(60)
        # Call the function without its decorator, because the decorator removes the original error.
        with pytest.raises(SourceUnavailable) as caught:
            fetch.fetch_json.__wrapped__(server.base_url)  # type: ignore[attr-defined]
        release.set()

        assert "(read timeout=1.0)" in str(caught.value.__context__)


class TestTheErrorOfAFetch:
    @pytest.mark.parametrize("status", [201, 302, 400, 403, 404, 500])
    def test_error_for_a_status_other_than_401_contains_no_advice(self, server, status):
        server.answer_with(status)

        assert error(server, secret=SECRET) == f"{server.base_url} answered {status}"

    def test_error_for_a_401_contains_no_advice_if_the_request_had_no_secret(self, server):
        server.answer_with(401)

        assert error(server) == f"{server.base_url} answered 401"

    def test_error_for_an_incomplete_document_names_the_protocol_error(self, server):
        def answer(handler: Any) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "100")
            handler.end_headers()
            handler.wfile.write(b"[")

        server.answer = answer

        assert error(server) == f"{server.base_url} can't be read (ProtocolError)"

    def test_error_for_an_invalid_chunk_names_the_protocol_error(self, server):
        def answer(handler: Any) -> None:
            handler.protocol_version = "HTTP/1.1"
            handler.close_connection = True
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"x\r\n")

        server.answer = answer

        assert error(server) == f"{server.base_url} can't be read (ProtocolError)"

    def test_error_for_a_document_that_is_not_json_names_the_json_error(self, server):
        server.answer_with(200, b"<html>")

        assert error(server) == f"{server.base_url} can't be read (JSONDecodeError)"


class TestTheMaximumAgeOfADocument:
    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("max-age=7", 7),
            ("public, max-age=7, must-revalidate", 7),
            ("public,Max-Age=7", 7),
            ("max-age=0", 0),
            ("max-age=999999999", 999_999_999),
            ("max-age=1000000000", None),
            ("s-maxage=7", None),
            ("x-max-age=7", None),
            ("max-age=", None),
            ("max-age=7.5", None),
            ("max-age=-7", None),
            ("max-age=\u0667", None),
            ("no-store", None),
        ],
    )
    def test_maximum_age_of_a_document_is_the_max_age_in_its_cache_control_header(self, server, header, seconds):
        server.answer_with(200, b"[]", Cache_Control=header.encode().decode("latin-1"))

        assert fetch.fetch_json(server.base_url).max_age == seconds

    def test_maximum_age_of_a_document_is_none_if_the_response_has_no_cache_control_header(self, server):
        assert fetch.fetch_json(server.base_url) == fetch.Fetched([])

    def test_unchanged_document_has_the_etag_of_the_caller_and_the_max_age_of_the_response(self, server):
        server.answer_with(304, Cache_Control="max-age=7")

        assert fetch.fetch_json(server.base_url, etag='"1"') == fetch.Fetched(None, '"1"', 7, not_modified=True)

    def test_document_has_the_etag_of_the_response(self, server):
        server.answer_with(200, json.dumps({"a": 1}).encode(), ETag='"2"')

        assert fetch.fetch_json(server.base_url, etag='"1"') == fetch.Fetched({"a": 1}, '"2"')
