"""`/internal/gateway/verify`: what a reverse proxy is told, byte for byte, and that it fails closed."""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import AsyncClient, Client
from jwcrypto.jwk import JWK

from instaccess import claims as claims_module
from instaccess import denylist, forward_auth, gateway, issuer, keyring, lifecycle
from instaccess.models import IssuedToken, Key
from tests.support.answers import CHALLENGE, INVALID, UNAVAILABLE, answer, signed_inside
from tests.support.clocks import Clock
from tests.support.mailing import mailed
from tests.support.tokens import Makes, b64, claims, respellings, with_header

pytestmark = pytest.mark.django_db

URL = "/internal/gateway/verify"
ORIGIN = issuer.Origin(canvas_domain="canvas.example.edu")


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("instaccess.snapshot.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture(autouse=True)
def fresh_gateway(initial_keys):
    forward_auth.forget()
    yield
    forward_auth.forget()


@pytest.fixture
def issue(user):
    """Issues a token; the audit row and the text."""

    def issue_(**changes: Any) -> tuple[IssuedToken, str]:
        return issuer.issue(**({"user": user, "origin": ORIGIN, "now": time.time()} | changes))

    return issue_


@pytest.fixture
def token(issue) -> str:
    return issue()[1]


@pytest.fixture
def make(initial_keys) -> Makes:
    """Makes tokens by hand under the keys that the gateway knows."""
    ring = keyring.current()
    return Makes(ring.signing_key().private(), ring.encryption_key().private())


class Answered(dict[str, str]):
    """An answer from whichever server: a status, headers, a body."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        super().__init__(headers)
        self.status_code, self.content = status, body


def by_wsgi(method: str = "GET", headers: Any = (), body: bytes = b"", path: str = URL) -> Answered:
    extra: dict[str, Any] = {}
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        extra[key] = f"{extra[key]},{value}" if key in extra else value  # as WSGI servers do
    response = Client().generic(method, path, body, **extra)
    return Answered(response.status_code, response.headers.items(), response.content)


def by_asgi(method: str = "GET", headers: Any = (), body: bytes = b"", path: str = URL) -> Answered:
    """Keeps to this thread, which has the test's transaction."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]},{value}" if name in joined else value

    async def ask() -> Any:
        return await AsyncClient().generic(method, path, body, headers=joined)

    response = async_to_sync(ask)()
    return Answered(response.status_code, response.headers.items(), response.content)


def by_the_wire_of_asgi(headers: list[tuple[str, str]]) -> Answered:
    """The application as a server calls it, in threads of its own."""

    async def ask() -> Answered:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": URL,
            "query_string": b"",
            "headers": [(b"host", b"testserver")] + [(n.lower().encode(), v.encode("latin-1")) for n, v in headers],
        }
        server = ApplicationCommunicator(get_asgi_application(), scope)
        await server.send_input({"type": "http.request", "body": b""})
        start = await server.receive_output(30)
        body = (await server.receive_output(30))["body"]
        await server.wait(30)
        return Answered(start["status"], [(n.decode(), v.decode()) for n, v in start["headers"]], body)

    return async_to_sync(ask)()


@pytest.fixture(params=[by_wsgi, by_asgi], ids=["wsgi", "asgi"])
def ask(request):
    return request.param


def verify(bearer: str | None = None, **kwargs: Any) -> Answered:
    return by_wsgi(headers=[] if bearer is None else [("Authorization", f"Bearer {bearer}")], **kwargs)


def status(bearer: str) -> int:
    return verify(bearer).status_code


class TestAValidToken:
    def test_is_answered_with_204_and_the_signed_token_for_upstream(self, ask, token):
        response = ask(headers=[("Authorization", f"Bearer {token}")])

        assert (response.status_code, response.content) == (204, b"")
        assert response["Authorization"] == f"Bearer {signed_inside(token)}"
        assert response["Cache-Control"] == "no-store"
        assert "WWW-Authenticate" not in response

    @pytest.mark.parametrize(
        "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE"]
    )
    def test_passes_with_any_method(self, ask, token, method):
        assert ask(method, [("Authorization", f"Bearer {token}")]).status_code == 204

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer ", "Bearer      "])
    def test_passes_however_the_scheme_is_written(self, token, scheme):
        assert by_wsgi(headers=[("Authorization", f"{scheme} {token}")]).status_code == 204

    def test_passes_again_and_again(self, token):
        assert [status(token) for _ in range(3)] == [204] * 3

    def test_passes_without_a_query_to_the_database_once_keys_and_deny_list_are_read(
        self, token, django_assert_num_queries
    ):
        verify(token)

        with django_assert_num_queries(0):
            assert status(token) == 204

    def test_needs_no_body_and_is_not_disturbed_by_one(self, ask, token):
        headers = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]

        assert ask("POST", headers, b'{"access_token":' * 100).status_code == 204

    def test_g20_is_decided_alike_whatever_else_the_request_says(self, ask, token):
        forged = [
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Proto", "gopher"),
            ("X-Forwarded-Method", "BREW"),
            ("X-Forwarded-Uri", "/internal/%00"),
            ("X-Original-URI", "/login"),
            ("X-Original-Method", "GET"),
            ("X-Remote-User", "admin"),
            ("X-Authorization", "Bearer good"),
            ("Proxy-Authorization", "Bearer good"),
            ("Cookie", "sessionid=admin; Authorization=Bearer"),
            ("Accept", "text/html"),
        ]
        good = ask(headers=[("Authorization", f"Bearer {token}"), *forged])
        bad = ask(headers=[("Authorization", "Bearer a.b.c.d.e"), *forged])
        none = ask(headers=forged, path=f"{URL}?access_token={token}")

        assert good["Authorization"] == f"Bearer {signed_inside(token)}"
        assert answer(bad) == answer(none) == INVALID

    def test_g17_with_rsa_4096_and_the_longest_claims_fits_into_4_kib_of_headers(self, settings, make):
        large = JWK.generate(kty="RSA", size=4096)
        settings.INSTACCESS = {"VERIFICATION_KEYS": [large.export_public()]}
        large_make = Makes(large, make.encryption)
        payload = claims(int(time.time()))
        payload["pad"] = "x" * (claims_module.MAX_PAYLOAD_BYTES - len(json.dumps(payload)) - 9 - 2)

        response = verify(large_make.encrypted(large_make.signed(payload)))

        assert response.status_code == 204
        lines = ["HTTP/1.1 204 No Content"] + [f"{name}: {value}" for name, value in response.items()]
        assert 3400 < sum(len(line) + 2 for line in lines) + 2 < 4096 - 200  # a server adds Date, Server, Connection


class TestEveryRefusal:
    """One answer, whatever the reason."""

    @pytest.fixture
    def refused_tokens(self, make, issue, rsa_pool) -> dict[str, str]:
        now = int(time.time())
        forger = Makes(rsa_pool.take("sig"), make.encryption)
        stranger = Makes(make.signing, rsa_pool.take("enc"))
        denied_row, denied = issue()
        IssuedToken.objects.filter(pk=denied_row.pk).update(revoked_at=denied_row.issued_at)
        good = issue()[1]
        head, *rest, tag = good.split(".")
        changed_tag = ("A" if tag[0] != "A" else "B") + tag[1:]
        return {
            "nothing": "",
            "no token": "x",
            "opaque": "lSnFYWpzVjkRe3Z8kdQ9bY0rS7Xc2mTq",
            "uuid": str(uuid.uuid4()),
            "empty segments": "....",
            "wrong alg": make.encrypted(alg="RSA1_5"),
            "wrong key": stranger.encrypted(make.signed(claims(now)), kid=make.encryption_kid),
            "unknown kid": stranger.encrypted(make.signed(claims(now))),
            "changed tag": ".".join([head, *rest, changed_tag]),
            "respelled": good + "=",
            "compressed": make.encrypted(make.signed(claims(now)), zip="DEF"),
            "bad signature": forger.encrypted(forger.signed(claims(now), kid=make.signing_kid)),
            "unknown signing kid": forger.encrypted(forger.signed(claims(now))),
            "expired": make.encrypted(make.signed(claims(now - 4000))),
            "from the future": make.encrypted(make.signed(claims(now + 400))),
            "lives too long": make.encrypted(make.signed(claims(now, exp=now + 7200))),
            "exp null": make.encrypted(make.signed(claims(now, exp=None))),
            "another issuer": make.encrypted(make.signed(claims(now, iss="other"))),
            "no jti": make.encrypted(make.signed(claims(now, jti=...))),
            "revoked": denied,
            "already decrypted": make.signed(claims(now)),
            "too long": ".".join([head, *rest, tag + "A" * 9000]),
            "nested twice": make.encrypted(good),
        }

    def test_g6_is_the_same_to_the_byte_and_to_the_header(self, ask, refused_tokens):
        answers = {
            name: ask(headers=[("Authorization", f"Bearer {text}")] if text else [])
            for name, text in refused_tokens.items()
        }

        assert {name for name, response in answers.items() if response.status_code != 401} == set()
        assert {name: answer(response) for name, response in answers.items()} == dict.fromkeys(answers, INVALID)
        assert len({tuple(sorted(response.items())) for response in answers.values()}) == 1

    def test_g6_is_the_same_the_second_time(self, refused_tokens):
        for name, text in refused_tokens.items():
            assert answer(verify(text)) == answer(verify(text)) == INVALID, name

    def test_says_the_reason_and_the_jti_in_the_log_and_the_token_nowhere(self, refused_tokens, caplog, issue):
        caplog.set_level(logging.DEBUG)
        reasons = {}
        for name, text in refused_tokens.items():
            caplog.clear()
            verify(text)
            (line,) = [record.getMessage() for record in caplog.records if record.name == "instaccess.gateway"]
            reasons[name] = line.split("reason=")[1].split(" ")[0]
            for part in [text, *text.split(".")]:
                assert len(part) < 8 or part not in caplog.text, name

        assert reasons == {
            "nothing": "malformed_header",
            "no token": "other_bearer",
            "opaque": "other_bearer",
            "uuid": "other_bearer",
            "empty segments": "malformed",
            "wrong alg": "wrong_alg",
            "wrong key": "decrypt_failed",
            "unknown kid": "unknown_kid",
            "changed tag": "decrypt_failed",
            "respelled": "malformed",
            "compressed": "bad_header",
            "bad signature": "bad_signature",
            "unknown signing kid": "unknown_kid",
            "expired": "expired",
            "from the future": "not_yet",
            "lives too long": "bad_lifetime",
            "exp null": "bad_claim",
            "another issuer": "foreign_issuer",
            "no jti": "bad_claim",
            "revoked": "revoked",
            "already decrypted": "already_decrypted",
            "too long": "too_long",
            "nested twice": "malformed",
        }

    def test_of_a_revoked_token_names_its_jti_in_the_log(self, issue, caplog):
        row, text = issue()
        IssuedToken.objects.filter(pk=row.pk).update(revoked_at=row.issued_at)
        verify(text)

        assert f"jti='{row.jti}'" in caplog.text

    def test_logs_no_line_that_a_client_has_written(self, make, caplog):
        now = int(time.time())
        for jti in (
            "a\nERROR forged line",
            "a\r\nforged",
            "a\x1b[2Jforged",
            "a\x00",
            "a\u2028forged",
            "a\u202eforged",
        ):
            verify(make.encrypted(make.signed(claims(now, jti=jti, sub=1))))

        lines = [r.getMessage() for r in caplog.records if r.name == "instaccess.gateway"]
        assert len(lines) == 6
        assert all(line.isprintable() for line in lines)

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW"])
    def test_is_the_same_with_any_method(self, ask, method):
        assert answer(ask(method)) == INVALID

    def test_g12_meets_two_authorization_headers_and_joined_ones(self, token):
        good = ("Authorization", f"Bearer {token}")
        for headers in (
            [good, good],
            [good, ("Authorization", "Bearer other")],
            [("Authorization", ""), good],
            [good, ("Authorization", "")],
            [("Authorization", f"Bearer {token}, Bearer {token}")],
            [("Authorization", f"Bearer {token},")],
        ):
            assert answer(by_wsgi(headers=headers)) == INVALID, headers
            assert answer(by_the_wire_of_asgi(headers)) == INVALID, headers

    @pytest.mark.parametrize(
        "header",
        [
            "{0}",
            "Bearer{0}",
            "Bearer\t{0}",
            "Bearer {0}\t",
            "Bearer {0} x",
            "Bearer {0};",
            'Bearer "{0}"',
            "Bearer token={0}",
            "Bearer Bearer {0}",
            "Basic {0}",
            "Token {0}",
            "DPoP {0}",
        ],
    )
    def test_meets_a_header_that_is_not_exactly_one_bearer(self, token, header):
        assert answer(by_wsgi(headers=[("Authorization", header.format(token))])) == INVALID

    def test_meets_a_token_it_remembers_with_any_character_of_a_header_more(self, token):
        assert status(token) == 204

        middle = len(token) // 2
        for place in (0, middle, token.index("."), len(token)):
            for character in map(chr, range(1, 256)):
                disturbed = token[:place] + character + token[place:]
                # Spaces around it are none of it (RFC 9110 §5.5).
                expected = 204 if disturbed.strip(" ") == token else 401
                assert status(disturbed) == expected, (place, character)
        assert status(token) == 204

    def test_g4_meets_every_other_spelling_of_a_valid_token(self, token):
        assert status(token) == 204
        for text in respellings(token):
            if text.strip(" ") != token:  # blanks around a header's value are not part of it (RFC 9110 §5.5)
                assert answer(verify(text)) == INVALID, text

    def test_g22_meets_the_decrypted_token_of_one_that_has_just_passed(self, token):
        assert status(token) == 204
        assert answer(verify(signed_inside(token))) == INVALID

    def test_says_the_realm_of_the_settings(self, settings):
        settings.INSTACCESS = {"REALM": "example-edu"}

        assert verify("x")["WWW-Authenticate"] == 'Bearer realm="example-edu"'


class TestWhereOtherBearersPass:
    @pytest.fixture(autouse=True)
    def passing(self, settings):
        settings.INSTACCESS = {"OTHER_BEARERS": "pass"}

    @pytest.mark.parametrize("bearer", ["opaque", "a.b", "1~x9Y", "a.b.c.d", "a.b.c.d.e.f", "x" * 5000, "a+b/c=="])
    def test_an_opaque_one_goes_on_unchanged(self, bearer):
        response = verify(bearer)

        assert (response.status_code, response["Authorization"]) == (204, f"Bearer {bearer}")

    def test_g19_one_of_over_8_kib_does_not(self):
        assert (status("x" * 8192), answer(verify("x" * 8193))) == (204, INVALID)

    def test_so_does_a_jwt_of_somebody_else(self, make):
        theirs = make.signed(claims(iss="https://idp.example"))

        assert verify(theirs)["Authorization"] == f"Bearer {theirs}"

    def test_an_encrypted_one_is_opened_all_the_same(self, token):
        assert verify(token)["Authorization"] == f"Bearer {signed_inside(token)}"

    def test_a_broken_encrypted_one_does_not_pass(self, make):
        for bearer in ("a.b.c.d.e", "....", make.encrypted(b"x"), make.encrypted(alg="RSA1_5")):
            assert answer(verify(bearer)) == INVALID

    def test_none_at_all_does_not_pass(self):
        assert answer(verify()) == answer(by_wsgi(headers=[("Authorization", "Basic YTpi")])) == INVALID

    def test_g22_a_decrypted_one_never_does_however_it_is_spelled(self, token, make):
        signed = signed_inside(token)
        header, payload, signature = signed.split(".")
        spaced = b64(b" " + json.dumps(claims()).encode() + b" ")
        escaped = b64(json.dumps(claims()).replace("instructure", "\\u0069nstructure").encode())
        doubled = b64(b'{"iss":"other",' + json.dumps(claims()).encode()[1:])
        reversed_ = b64(json.dumps(claims()).encode()[:-1] + b',"iss":"other"}')
        listed = b64(json.dumps(claims(iss=["instructure:inst_access"])).encode())
        marked = b64(b"\xef\xbb\xbf" + json.dumps(claims()).encode())
        utf16 = b64(json.dumps(claims()).encode("utf-16"))
        others = (spaced, escaped, doubled, reversed_, listed, marked, utf16)
        for text in (
            signed,
            *respellings(signed),
            f"{header}.{payload}=.{signature}",
            f"{header}.{payload}==.{signature}",
            f"{header}=.{payload}.{signature}",
            f"{header}.{payload}.{signature}==",
            f"{header}.{payload}.",
            f"{header}..{signature}",
            f".{payload}.{signature}",
            f"{header}.{payload}+.{signature}",
            f"{header}.{payload}/.{signature}",
            *(f"{header}.{other}.{signature}" for other in others),
            f"{header}.{b64(b'[]')}.{signature}",
            f"{header}.{payload}.{'A' * 9000}",
        ):
            response = verify(text)
            parts = text.strip(" ").split(".")
            # Another number of parts is no JWT to anybody.
            assert answer(response) == INVALID if len(parts) == 3 else response.status_code in (204, 401), text


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
        (row, one), (_, others) = issue(), issue(origin=issuer.Origin(canvas_domain="other.example.edu"))
        assert status(one) == status(others) == 204

        call_command("instaccess_tokens", "revoke", "--account", row.account_uuid, "--reason", "closed")

        assert refused_in_five_seconds(one)
        assert status(others) == 204

    @pytest.mark.parametrize("use", [Key.Use.SIGNING, Key.Use.ENCRYPTION])
    def test_g21_of_all_tokens_under_a_key(self, clock, issue, refused_in_five_seconds, use):
        if use == Key.Use.ENCRYPTION:
            from instaccess import keys

            keys.generate(use)
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


class Broken:
    """For the length of a `with`, the database answers nothing."""

    def __call__(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        raise OperationalError("server closed the connection unexpectedly")


class TestWhileTheDatabaseIsAway:
    def test_o1_tokens_pass_and_are_refused_by_what_is_in_memory_up_to_the_setting(self, clock, issue, caplog):
        (_, text), (_, new), (row, gone) = issue(), issue(), issue()
        IssuedToken.objects.filter(pk=row.pk).update(revoked_at=row.issued_at)
        assert (status(text), status(gone)) == (204, 401)

        with connection.execute_wrapper(Broken()):
            for _ in range(6):
                clock.pass_(10)
                assert (status(text), status(new), status(gone)) == (204, 204, 401)
            clock.pass_(6)
            assert answer(verify(text)) == UNAVAILABLE
            assert verify(text)["Retry-After"] == "10"
        assert text not in caplog.text

    def test_o1_it_is_back_by_itself(self, clock, token):
        assert status(token) == 204
        with connection.execute_wrapper(Broken()):
            clock.pass_(3600)
            assert status(token) == 503

        assert status(token) == 204

    def test_o1_a_worker_that_starts_then_lets_nobody_in(self, token):
        keyring.forget()
        with connection.execute_wrapper(Broken()):
            assert answer(verify(token)) == UNAVAILABLE

    def test_o1_a_gateway_without_a_deny_list_lets_nobody_in_though_it_has_the_keys(self, token, settings):
        keyring.current().decryption_keys()
        with connection.execute_wrapper(Broken()):
            assert answer(verify(token)) == UNAVAILABLE

    def test_o13_staleness_can_be_ruled_out(self, clock, token, settings):
        settings.INSTACCESS = {"MAX_STALENESS": 0}
        assert status(token) == 204
        with connection.execute_wrapper(Broken()):
            assert status(token) == 204
            clock.pass_(2)
            assert answer(verify(token)) == UNAVAILABLE

    def test_what_needs_no_key_is_refused_as_ever(self):
        keyring.forget()
        with connection.execute_wrapper(Broken()):
            assert answer(verify()) == answer(verify("opaque")) == answer(verify("a.b.c")) == INVALID

    def test_g1_g19_what_is_no_encrypted_token_of_ours_by_its_looks_is_refused_as_ever(self, token):
        keyring.forget()
        other_alg = with_header(token, {"alg": "RSA1_5", "enc": "A128CBC-HS256"})
        looks = ["a.b.c.d.e", "x" * 9000 + ".b.c.d.e", b64(b'{"alg":"none"}') + ".b.c.d.e", token + "=", other_alg]
        with connection.execute_wrapper(Broken()):
            assert {answer(verify(text)) for text in looks} == {INVALID}

    @pytest.mark.parametrize(
        "bearer", ["{0},Bearer other", "other,Bearer {0}", "{0} x", "{0}\t", "{0}\xa0", "\xe9{0}"]
    )
    def test_a_header_that_is_not_exactly_one_bearer_is_refused_as_ever_though_it_has_five_parts(self, token, bearer):
        keyring.forget()
        with connection.execute_wrapper(Broken()):
            assert answer(verify(bearer.format(token))) == INVALID


class TestAFaultOfOurs:
    """Nothing but 204, 401 and 503."""

    @pytest.mark.parametrize(
        "settings_",
        [
            {"DECRYPTION_KEYS": ["/does/not/exist"]},
            {"DECRYPTION_KEYS": "no list"},
            {"VERIFICATION_KEYS": ["garbage"]},
            {"DENY_LIST": "http://127.0.0.1/"},
            {"DENY_LIST": "https://127.0.0.1:9/", "SERVICE_SECRETS": []},
            {"ENCRYPTION_ALG": "none"},
            {"LEEWAY": "1"},
            {"MAX_STALENESS": -1},
            {"REMEMBERED_TOKENS": "many"},
            {"ISSUER": 7},
        ],
    )
    def test_a_bad_setting_is_a_503(self, ask, token, settings, settings_):
        settings.INSTACCESS = settings_

        assert answer(ask(headers=[("Authorization", f"Bearer {token}")])) == UNAVAILABLE

    @pytest.mark.parametrize("debug", [False, True])
    @pytest.mark.parametrize("settings_", [{"REALM": 'a"b'}, {"REALM": "\xe9"}, ["no", "dictionary"]])
    def test_a_bad_setting_is_a_503_also_for_what_is_refused_and_the_token_in_no_report(
        self, ask, issue, settings, settings_, debug, error_mail
    ):
        row, text = issue()
        IssuedToken.objects.filter(pk=row.pk).update(revoked_at=row.issued_at)
        settings.DEBUG, settings.INSTACCESS = debug, settings_

        for headers in ([], [("Authorization", f"Bearer {text}")], [("Authorization", "Bearer x")]):
            assert answer(ask(headers=headers)) == UNAVAILABLE
        assert text not in mailed()

    def test_no_keys_at_all_are_a_503(self, token):
        Key.objects.all().delete()
        keyring.forget()

        assert answer(verify(token)) == UNAVAILABLE

    def test_o6_a_lost_key_encryption_key_is_a_503(self, token, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43]}
        keyring.forget()

        assert answer(verify(token)) == UNAVAILABLE

    @pytest.mark.parametrize("error", [RuntimeError, KeyError, MemoryError, RecursionError, UnicodeDecodeError])
    def test_an_error_nobody_thought_of_is_a_503_and_a_log_line_without_the_token(
        self, ask, token, monkeypatch, caplog, error
    ):
        def fail(text: str, **kwargs: Any) -> Any:
            if error is UnicodeDecodeError:
                raise UnicodeDecodeError("utf-8", text.encode(), 0, 1, "bad")
            raise error(text)

        monkeypatch.setattr(gateway, "unwrap", fail)

        assert answer(ask(headers=[("Authorization", f"Bearer {token}")])) == UNAVAILABLE
        assert error.__name__ in caplog.text
        assert Path(__file__).name in caplog.text
        assert token not in caplog.text

    def test_p12_a_log_handler_that_fails_does_not_carry_the_token_along(self, ask, token, monkeypatch, capsys):
        def fail(text: str, **kwargs: Any) -> Any:
            raise RuntimeError(text)

        class Full(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                try:
                    os.stat("/dev/null/full")
                except OSError:
                    self.handleError(record)

        monkeypatch.setattr(gateway, "unwrap", fail)
        monkeypatch.setattr(logging, "raiseExceptions", True)
        handler = Full()
        logging.getLogger("instaccess").addHandler(handler)
        try:
            assert answer(ask(headers=[("Authorization", f"Bearer {token}")])) == UNAVAILABLE
        finally:
            logging.getLogger("instaccess").removeHandler(handler)

        printed = capsys.readouterr().err
        assert "/dev/null/full" in printed
        assert token not in printed

    def test_a_header_in_bytes_that_are_no_text_is_refused(self):
        for value in ("Bearer \xff\xfe", "Bearer é.é.é.é.é", "\x00", "Bearer a\x00b"):
            for asked in (
                by_wsgi(headers=[("Authorization", value)]),
                by_the_wire_of_asgi([("Authorization", value)]),
            ):
                assert answer(asked) == INVALID


class TestTheUrl:
    def test_is_left_alone_by_the_host_projects_middleware(self, settings, token):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]

        assert status(token) == 204
        assert answer(verify("x")) == INVALID

    def test_asks_for_no_csrf_token(self, token):
        response = Client(enforce_csrf_checks=True).post(URL, headers={"Authorization": f"Bearer {token}"})

        assert response.status_code == 204

    def test_challenge_is_the_contracts(self):
        assert verify()["WWW-Authenticate"] == CHALLENGE


class TestRememberedTokens:
    def test_are_as_many_as_the_setting_says(self, issue, settings):
        settings.INSTACCESS = {"REMEMBERED_TOKENS": 3}
        for _ in range(5):
            verify(issue()[1])

        assert len(forward_auth._remembered._tokens) == 3

    def test_are_none_where_the_setting_is_0(self, token, settings):
        settings.INSTACCESS = {"REMEMBERED_TOKENS": 0}

        assert [status(token), status(token)] == [204, 204]
        assert not forward_auth._remembered._tokens

    def test_go_with_the_deny_list_when_all_is_forgotten(self, token):
        verify(token)
        forward_auth.forget()

        assert not forward_auth._remembered._tokens
        assert denylist._database._value is None
