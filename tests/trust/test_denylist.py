"""Tests of a gateway's deny list from the issuer's database or URL, and of the endpoint that serves the URL."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from instaccess import audit
from instaccess.conf import conf
from instaccess.exceptions import ConfigError, SourceUnavailable
from instaccess.models import IssuedToken
from instaccess.tokens import Claims
from instaccess.trust import denylist, fetch, revocation_table
from tests.support import readme
from tests.support.servers import reply, scripted_server
from tests.support.tokens import ISSUER, claims

SECRET = "0123456789abcdef0123456789abcdef"
REVOCATIONS = "/internal/services/revocations"


@pytest.fixture(autouse=True)
def empty_caches():
    """Clear the cached deny list before and after each test."""
    denylist.clear_cache()
    yield
    denylist.clear_cache()


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)

    def monotonic() -> float:
        clock.now += 1e-6  # Like a real clock, return a later time on each call.
        return clock.now

    monkeypatch.setattr("instaccess.trust.refreshed.time", SimpleNamespace(monotonic=monotonic))
    return clock


@pytest.fixture
def revoke() -> Callable[[IssuedToken], None]:
    """Return a function that revokes the token of an audit row."""

    def revoke_(row: IssuedToken) -> None:
        audit.revoke(audit.revocable_tokens().filter(pk=row.pk), keks=conf.key_encryption_keys, reason="lost")

    return revoke_


@pytest.mark.django_db
class TestADenyListFromTheDatabase:
    def test_deny_list_contains_only_revoked_tokens_that_a_gateway_could_otherwise_accept(self, row):
        now = timezone.now()
        denied = row(revoked_at=now)
        row()
        row(revoked_at=now - timedelta(minutes=30), expires_at=now - timedelta(seconds=361))
        row(issued_at=now - timedelta(days=9), expires_at=now - timedelta(days=9), revoked_at=now - timedelta(days=9))

        assert denylist.current() == {str(denied.jti)}

    def test_deny_list_contains_a_token_that_was_revoked_in_its_first_second_until_the_token_expires(self, row):
        now = timezone.now()
        denied = row(
            issued_at=now - timedelta(seconds=3595),
            revoked_at=now - timedelta(seconds=3595),
            expires_at=now + timedelta(seconds=5),
        )

        assert denylist.current() == {str(denied.jti)}

    def test_deny_list_contains_an_expired_token_that_a_gateway_with_the_largest_leeway_accepts(self, row):
        now = timezone.now()
        denied = row(
            issued_at=now - timedelta(seconds=3890),
            revoked_at=now - timedelta(seconds=3890),
            expires_at=now - timedelta(seconds=290),
        )

        assert denylist.current() == {str(denied.jti)}

    def test_deny_list_contains_each_jti_in_the_same_form_as_in_a_token(self, row):
        denied = row(revoked_at=timezone.now())

        (jti,) = denylist.current()
        assert jti == str(denied.jti)
        assert jti.count("-") == 4

    def test_first_reading_of_the_deny_list_takes_three_queries_and_the_next_reading_takes_one(
        self, row, clock, revoke, django_assert_num_queries
    ):
        revoke(row())
        with django_assert_num_queries(3):
            denylist.current()
            denylist.current()
        clock.now += 2
        with django_assert_num_queries(1):
            denylist.current()

    # Use real transactions, because MariaDB's ANALYZE would commit the transaction of the test.
    @pytest.mark.django_db(transaction=True)
    def test_query_for_revoked_tokens_uses_an_index(self, row):
        now = timezone.now()
        IssuedToken.objects.bulk_create(
            IssuedToken(
                jti=uuid.uuid4(),
                user_uuid="u",
                account_uuid="a",
                canvas_domain="d",
                signing_kid="s",
                issued_at=now - timedelta(days=30),
                expires_at=now - timedelta(days=30),
                revoked_at=now - timedelta(days=30) if number % 2 else None,
            )
            for number in range(2000)
        )
        adapt = connection.ops.adapt_datetimefield_value
        with connection.cursor() as cursor:
            if connection.vendor != "sqlite":
                cursor.execute(f"ANALYZE {'TABLE ' * (connection.vendor == 'mysql')}{revocation_table.TOKENS_TABLE}")
                cursor.fetchall() if connection.vendor == "mysql" else None
            explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
            earliest = adapt(now - timedelta(hours=1))
            cursor.execute(f"{explain} {revocation_table._TOKENS}", [earliest, earliest, 0, adapt(now)])
            plan = str(cursor.fetchall())

        assert "instaccess_revoked" in plan

    def test_deny_list_raises_an_operational_error_if_the_database_is_unavailable(self):
        def broken(*args: Any) -> Any:
            raise OperationalError("unavailable")

        with connection.execute_wrapper(broken), pytest.raises(OperationalError):
            denylist.current()


def document(*jtis: str, **members: Any) -> bytes:
    return json.dumps({"revoked": list(jtis), **members}).encode()


@pytest.fixture
def remote(settings):
    """Run a server with an answer that the test can change, and set DENY_LIST to the URL of the server."""
    with scripted_server(lambda handler: reply(handler, 200, document("one"))) as script:
        settings.INSTACCESS = {
            "DENY_LIST": script.base_url + REVOCATIONS,
            "SERVICE_SECRETS": [SECRET, "f" * 32],
            "ALLOW_HTTP_URLS": True,
        }
        yield script


class TestADenyListFromAURL:
    def test_the_deny_list_contains_the_tokens_that_the_issuer_lists(self, remote):
        assert denylist.current() == {"one"}

    def test_g21_deny_list_can_contain_400000_tokens(self, remote):
        many = [str(uuid.uuid4()) for _ in range(400_000)]
        remote.answer_with(200, document(*many))

        assert denylist.current() == set(many)

    def test_deny_list_error_names_the_setting_if_the_issuer_returns_401(self, remote):
        remote.answer_with(401)

        with pytest.raises(SourceUnavailable, match=r"answered 401: add the first .*\['SERVICE_SECRETS'\]"):
            denylist.current()

    def test_deny_list_request_contains_the_first_configured_secret(self, remote):
        denylist.current()

        (request,) = remote.requests
        assert (request.method, request.path) == ("GET", REVOCATIONS)
        assert request.headers["Authorization"] == f"Bearer {SECRET}"

    def test_netrc_file_does_not_replace_the_secret_of_a_deny_list_request(self, remote, tmp_path, monkeypatch):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login a password b\n")
        monkeypatch.setenv("NETRC", str(netrc))
        denylist.current()

        assert remote.requests[0].headers["Authorization"] == f"Bearer {SECRET}"

    def test_deny_list_request_contains_the_etag_of_the_last_response(self, remote, clock):
        remote.answer_with(200, document("one"), ETag='"1"')
        assert denylist.current() == {"one"}
        remote.answer_with(304)
        clock.now += 2
        assert denylist.current() == {"one"}

        assert remote.requests[1].headers["If-None-Match"] == '"1"'

    def test_gateway_uses_an_unchanged_deny_list_for_longer_than_max_staleness(self, remote, clock):
        remote.answer_with(200, document("one"), ETag='"1"')
        assert denylist.current() == {"one"}
        remote.answer_with(304)
        for _ in range(60):
            clock.now += 2
            assert denylist.current() == {"one"}

        assert len(remote.requests) == 61
        assert {request.headers["If-None-Match"] for request in remote.requests[1:]} == {'"1"'}
        # A 304 confirms the deny list, so MAX_STALENESS is counted from the last 304.
        remote.answer_with(500)
        clock.now += 50
        assert denylist.current() == {"one"}
        clock.now += 13
        with pytest.raises(SourceUnavailable):
            denylist.current()

    def test_changed_deny_list_of_the_issuer_replaces_the_last_deny_list(self, remote, clock):
        remote.answer_with(200, document("one"), ETag='"1"')
        denylist.current()
        remote.answer_with(200, document("one", "two"), ETag='"2"')
        clock.now += 2

        assert denylist.current() == {"one", "two"}

    def test_gateway_requests_only_revocations_after_its_last_position(self, remote, clock):
        remote.answer_with(200, document("one", cursor="17"))
        denylist.current()
        remote.answer_with(200, document("two", cursor="18"))
        clock.now += 2

        assert denylist.current() == {"one", "two"}
        assert [request.query for request in remote.requests] == ["since=", "since=17"]

    def test_gateway_requests_all_pages_of_a_long_deny_list_in_one_load(self, remote):
        def answer(handler: Any) -> None:
            number = int(handler.path.partition("since=")[2] or 8) + 1
            reply(handler, 200, document(str(number), cursor=str(number), more=number < 12))

        remote.answer = answer

        assert denylist.current() == {"9", "10", "11", "12"}

    def test_gateway_stops_requesting_if_the_issuer_always_sends_the_same_page_of_the_deny_list(self, remote):
        remote.answer_with(200, document("one", cursor="17", more=True))

        assert denylist.current() == {"one"}
        assert len(remote.requests) == 2

    def test_gateway_reads_revoked_users_accounts_and_keys_from_the_deny_list(self, remote):
        members = {"revoked_users": {"u": 7}, "revoked_accounts": {"a": 8}, "revoked_keys": ["k"], "revoked_until": 6}
        remote.answer_with(200, document(**members))
        deny_list = denylist.current()

        refused = [({"sub": "u", "iat": 7}, ""), ({"acct": "a", "iat": 8}, ""), ({}, "k"), ({"iat": 6}, "")]
        for changes, kid in refused:
            payload = claims() | changes
            payload["exp"] = payload["iat"] + 3600
            token = Claims.from_payload(payload, now=payload["iat"], issuers=[ISSUER])
            assert deny_list.find(token, kid) is not None

    def test_k15_a_lost_position_in_the_deny_list_is_logged_and_earlier_revocations_are_kept(
        self, remote, clock, caplog
    ):
        remote.answer_with(200, document("one", cursor="17"))
        denylist.current()
        remote.answer_with(200, document("two", cursor="16", position_lost=True))
        clock.now += 10

        assert denylist.current() == {"one", "two"}
        assert "keeps refusing the revoked tokens" in caplog.text
        assert "after-restore" in caplog.text

    def test_deny_list_request_keeps_the_query_of_the_configured_url(self, remote, settings):
        settings.INSTACCESS = settings.INSTACCESS | {"DENY_LIST": f"{remote.base_url}{REVOCATIONS}?tenant=a"}
        denylist.current()

        assert remote.requests[0].query == "tenant=a&since="

    def test_gateway_does_not_request_the_deny_list_again_within_the_interval(self, remote, clock):
        for _ in range(5):
            denylist.current()
            clock.now += 0.3

        assert len(remote.requests) == 1

    @pytest.mark.parametrize(
        "answer",
        [
            (500, b""),
            (503, document("one")),
            (401, b'{"errors":[]}'),
            (404, b"<html>"),
            (201, document("one")),
            (304, b""),
            (200, b""),
            (200, b"<html>"),
            (200, b"[]"),
            (200, b"{}"),
            (200, b'{"revoked": null}'),
            (200, b'{"revoked": {"one": 1}}'),
            (200, b'{"revoked": [1]}'),
            (200, b'{"revoked": "one"}'),
            (200, b'{"revoked": [], "revoked_keys": {}}'),
            (200, b'{"revoked": [], "revoked_users": ["u"]}'),
            (200, b'{"revoked": [], "revoked_accounts": {"a": "7"}}'),
            (200, b'{"revoked": [], "revoked_until": "7"}'),
            (200, b'{"revoked": [], "revoked_until": true}'),
            (200, b'{"revoked": [], "cursor": 17}'),
            (200, b'{"revoked": [], "position_lost": 1}'),
            (200, b'{"revoked": [], "cursor": "1", "more": 1}'),
            (200, b'{"revoked": [], "more": true}'),
            (200, b"[" * 100_000),
            (200, b"\xff\xfe"),
            (200, b" " * (10 * 1024 * 1024)),
        ],
        ids=lambda answer: f"{answer[0]}-{answer[1][:20]!r}",
    )
    def test_faulty_deny_list_response_raises_source_unavailable_if_the_last_deny_list_is_too_old(
        self, remote, clock, answer
    ):
        remote.answer_with(*answer)
        with pytest.raises(SourceUnavailable) as caught:
            denylist.current()
        assert SECRET not in str(caught.value)

        remote.answer_with(200, document("one"))
        assert denylist.current() == {"one"}
        remote.answer_with(*answer)
        clock.now += 50
        assert denylist.current() == {"one"}
        clock.now += 13
        with pytest.raises(SourceUnavailable):
            denylist.current()

    def test_gateway_does_not_follow_a_redirect_of_the_deny_list_to_another_server(self, remote):
        with scripted_server(lambda handler: reply(handler, 200, document())) as other_server:
            for status in (301, 302, 303, 307, 308):
                remote.answer_with(status, Location=other_server.base_url + REVOCATIONS)
                with pytest.raises(SourceUnavailable, match=str(status)):
                    denylist.current()

        assert other_server.requests == []

    def test_deny_list_request_to_a_server_that_stalls_ends_after_the_timeout(self, remote, monkeypatch):
        monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
        release = threading.Event()
        remote.answer = lambda handler: release.wait(60)
        with pytest.raises(SourceUnavailable):
            denylist.current()
        release.set()

    def test_deny_list_request_to_a_server_that_sends_slowly_ends_after_the_time_limit(self, remote, monkeypatch):
        monkeypatch.setattr(fetch, "BODY_SECONDS", 0.3)
        stop = threading.Event()

        def send_slowly(handler: Any) -> None:
            handler.send_response(200)
            handler.end_headers()
            while not stop.wait(0.02):
                handler.wfile.write(b" " * 20_000)
                handler.wfile.flush()

        remote.answer = send_slowly
        started = time.monotonic()
        with pytest.raises(SourceUnavailable):
            denylist.current()
        stop.set()
        assert time.monotonic() - started < 30

    def test_error_of_a_refused_deny_list_connection_does_not_contain_the_secret(self, settings):
        settings.INSTACCESS = {
            "DENY_LIST": "http://127.0.0.1:1/",
            "SERVICE_SECRETS": [SECRET],
            "ALLOW_HTTP_URLS": True,
        }
        with pytest.raises(SourceUnavailable) as caught:
            denylist.current()
        assert SECRET not in str(caught.value)

    def test_gateway_sends_no_deny_list_request_if_no_secret_is_configured(self, remote, settings):
        settings.INSTACCESS = {**settings.INSTACCESS, "SERVICE_SECRETS": []}

        with pytest.raises(ConfigError, match="SERVICE_SECRETS"):
            denylist.current()
        assert remote.requests == []

    def test_deny_list_url_with_http_is_refused_unless_http_is_allowed(self, remote, settings):
        settings.INSTACCESS = {**settings.INSTACCESS, "ALLOW_HTTP_URLS": False}

        with pytest.raises(ConfigError, match="https"):
            denylist.current()
        assert remote.requests == []


@pytest.mark.django_db
class TestTheRevocationListEndpoint:
    @pytest.fixture(autouse=True)
    def secret(self, settings):
        settings.INSTACCESS = {"SERVICE_SECRETS": [SECRET, "f" * 32]}

    @pytest.fixture
    def get(self, client):
        def get_(secret: str | None = SECRET, *, since: str | None = None, **headers: str) -> Any:
            if secret is not None:
                headers["Authorization"] = f"Bearer {secret}"
            return client.get(REVOCATIONS, None if since is None else {"since": since}, headers=headers)

        return get_

    def test_revocation_list_endpoint_lists_each_revoked_jti_in_order(self, get, row):
        now = timezone.now()
        denied = sorted(str(row(revoked_at=now).jti) for _ in range(3))
        row()

        response = get()

        assert response.json()["revoked"] == denied
        assert response["Content-Type"] == "application/json; charset=utf-8"
        assert response["Cache-Control"] == "private, no-cache"

    def test_revocation_list_endpoint_lists_revoked_users_accounts_and_keys(self, get, row):
        user = row()
        revocation = {"keks": conf.key_encryption_keys, "reason": "x", "now": timezone.now()}
        audit.revoke(audit.revocable_tokens(), scopes=audit.scopes_of_user("ada"), **revocation)
        audit.record_revocation([audit.Scope.account("a1")], latest_iat=17, **revocation)
        audit.record_revocation([audit.Scope.key("k1")], **revocation)

        document = get().json()
        assert document["revoked_users"].keys() == {user.user_uuid}
        assert (document["revoked_accounts"], document["revoked_keys"]) == ({"a1": 17}, ["k1"])

    def test_revocation_list_endpoint_returns_the_members_of_the_example_in_the_wire_contract(self, get):
        (example,) = re.findall(r'^\{"cursor".*\}$', readme.page("wire-contract.md"), re.MULTILINE)

        documented, document = json.loads(example), get().json()
        assert list(documented) == list(document)
        assert [type(value) for value in documented.values()] == [type(value) for value in document.values()]

    def test_revocation_list_after_a_position_contains_only_later_revocations(self, get, row, revoke):
        revoke(row())
        first = get(since="").json()
        assert (len(first["revoked"]), first["more"]) == (1, False)
        new = row()
        revoke(new)

        later = get(since=first["cursor"]).json()
        assert (later["revoked"], later["more"]) == ([str(new.jti)], False)
        assert get(since=later["cursor"]).json()["revoked"] == []

    def test_revocation_list_contains_all_revocations_if_the_request_has_no_position(
        self, get, row, revoke, monkeypatch
    ):
        monkeypatch.setattr(revocation_table, "PAGE", 2)
        monkeypatch.setattr(revocation_table, "_TOKENS", revocation_table._TOKENS.replace("10000", "2"))
        rows = [row() for _ in range(5)]
        for each in rows:
            revoke(each)
        audit.record_revocation(
            [audit.Scope.key("k1")], keks=conf.key_encryption_keys, reason="x", now=timezone.now()
        )

        document = get().json()
        assert document["revoked"] == sorted(str(each.jti) for each in rows)
        assert (document["revoked_keys"], document["more"]) == (["k1"], False)
        assert len(get(since="").json()["revoked"]) == 2

    def test_revocation_list_after_an_unknown_position_contains_all_revocations(self, get, row, revoke):
        revoke(row())

        for position in ("1", "x", "", "9" * 400):
            assert len(get(since=position).json()["revoked"]) == 1

    def test_request_for_revocations_after_a_position_gets_a_304_if_there_are_no_later_revocations(
        self, get, row, revoke
    ):
        revoke(row())
        position = get(since="").json()["cursor"]
        etag = get(since=position)["ETag"]

        assert get(since=position, **{"If-None-Match": etag}).status_code == 304
        revoke(row())
        assert get(since=position, **{"If-None-Match": etag}).status_code == 200

    def test_revocation_list_endpoint_accepts_only_the_configured_secrets(self, get, client):
        assert get("f" * 32).status_code == 200
        for secret in (None, "", "g" * 32, SECRET[:-1], SECRET + "x", SECRET.upper(), "é" * 32):
            response = get(secret)
            assert response.status_code == 401
            assert response.json() == {"errors": [{"message": "Invalid access token."}]}
        assert client.get(REVOCATIONS, headers={"Authorization": f"Basic {SECRET}"}).status_code == 401
        assert client.get(REVOCATIONS, headers={"Authorization": SECRET}).status_code == 401
        assert client.get(f"{REVOCATIONS}?access_token={SECRET}").status_code == 401

    def test_revocation_list_endpoint_refuses_every_client_if_no_secret_is_configured(self, get, settings):
        settings.INSTACCESS = {}

        assert get("").status_code == get(None).status_code == get(SECRET).status_code == 401

    def test_revocation_list_endpoint_returns_304_while_the_list_has_not_changed(self, get, row):
        row(revoked_at=timezone.now())
        etag = get()["ETag"]

        response = get(**{"If-None-Match": etag})
        assert (response.status_code, response.content) == (304, b"")
        row(revoked_at=timezone.now())
        assert get(**{"If-None-Match": etag}).status_code == 200

    def test_revocation_list_endpoint_returns_401_for_a_wrong_secret_even_if_the_etag_matches(self, get):
        etag = get()["ETag"]

        assert get("g" * 32, **{"If-None-Match": etag}).status_code == 401

    def test_revocation_list_endpoint_allows_only_get_and_head(self, client):
        for method in ("post", "put", "delete", "patch"):
            response = getattr(client, method)(REVOCATIONS)
            assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")

    def test_revocation_list_endpoint_returns_503_and_no_list_if_the_database_is_unavailable(self, get):
        def broken(*args: Any) -> Any:
            raise OperationalError("unavailable")

        with connection.execute_wrapper(broken):
            response = get()
        assert (response.status_code, response["Cache-Control"]) == (503, "no-store")
        assert "revoked" not in response.content.decode()

    def test_log_of_the_revocation_list_endpoint_contains_no_secret(self, get, caplog):
        get("g" * 32)
        get()

        assert SECRET not in caplog.text
        assert "g" * 32 not in caplog.text
