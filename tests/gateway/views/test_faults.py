"""Tests of the 503 of the gateway: while the database is unavailable, if a setting is invalid, or after an error."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection

from instaccess.gateway import unwrapping
from instaccess.keys import ring
from instaccess.models import IssuedToken, Key
from tests.support.answers import INVALID, UNAVAILABLE, answer
from tests.support.mailing import mailed
from tests.support.tokens import b64, with_header
from tests.support.verifying import by_asgi_server, by_wsgi, status, verify

pytestmark = pytest.mark.django_db


class UnavailableDatabase:
    """A database `execute_wrapper` in which every query fails."""

    def __call__(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        raise OperationalError("server closed the connection unexpectedly")


class TestAGatewayWhileTheDatabaseIsUnavailable:
    def test_o1_gateway_uses_cached_keys_and_deny_list_while_the_database_is_unavailable(self, clock, issue, caplog):
        (_, text), (_, new), (row, revoked) = issue(), issue(), issue()
        IssuedToken.objects.filter(pk=row.pk).update(revoked_at=row.issued_at)
        assert (status(text), status(revoked)) == (204, 401)

        with connection.execute_wrapper(UnavailableDatabase()):
            for _ in range(6):
                clock.advance(10)
                assert (status(text), status(new), status(revoked)) == (204, 204, 401)
            clock.advance(6)
            assert answer(verify(text)) == UNAVAILABLE
            assert verify(text)["Retry-After"] == "10"
        assert text not in caplog.text

    def test_o1_gateway_accepts_tokens_again_when_the_database_is_available_again(self, clock, token):
        assert status(token) == 204
        with connection.execute_wrapper(UnavailableDatabase()):
            clock.advance(3600)
            assert status(token) == 503

        assert status(token) == 204

    def test_o1_gateway_that_starts_while_the_database_is_unavailable_returns_503(self, token):
        ring.clear_cache()
        with connection.execute_wrapper(UnavailableDatabase()):
            assert answer(verify(token)) == UNAVAILABLE

    def test_o1_gateway_returns_503_if_keys_are_cached_and_no_deny_list_can_be_read(self, token, settings):
        ring.current_ring().decryption_keys()
        with connection.execute_wrapper(UnavailableDatabase()):
            assert answer(verify(token)) == UNAVAILABLE

    def test_o13_gateway_returns_503_when_its_cache_expires_and_the_database_is_unavailable(
        self, clock, token, settings
    ):
        settings.INSTACCESS = {"MAX_STALENESS": 0}
        assert status(token) == 204
        with connection.execute_wrapper(UnavailableDatabase()):
            assert status(token) == 204
            clock.advance(2)
            assert answer(verify(token)) == UNAVAILABLE

    def test_gateway_needs_no_database_to_return_401_for_a_token_that_it_refuses_without_a_key(self):
        ring.clear_cache()
        with connection.execute_wrapper(UnavailableDatabase()):
            assert answer(verify()) == answer(verify("opaque")) == answer(verify("a.b.c")) == INVALID

    def test_g1_g19_gateway_needs_no_database_to_return_401_for_a_token_that_fails_strict_parsing(self, token):
        ring.clear_cache()
        other_alg = with_header(token, {"alg": "RSA1_5", "enc": "A128CBC-HS256"})
        malformed = [
            "a.b.c.d.e",
            "x" * 9000 + ".b.c.d.e",
            b64(b'{"alg":"none"}') + ".b.c.d.e",
            token + "=",
            other_alg,
        ]
        with connection.execute_wrapper(UnavailableDatabase()):
            assert {answer(verify(text)) for text in malformed} == {INVALID}

    @pytest.mark.parametrize(
        "source", [{"DECRYPTION_KEYS": ["/does/not/exist"]}, {"VERIFICATION_KEYS": ["/does/not/exist"]}]
    )
    def test_gateway_without_its_keys_returns_401_for_a_token_that_fails_strict_parsing(self, settings, source):
        settings.INSTACCESS = source

        assert answer(verify("a.b.c.d.e")) == INVALID

    def test_o1_gateway_returns_503_for_an_rsa1_5_token_while_the_database_is_unavailable(self, issue, settings):
        settings.INSTACCESS = {"ENCRYPTION_ALG": "RSA1_5"}
        token = issue()[1]
        ring.clear_cache()
        with connection.execute_wrapper(UnavailableDatabase()):
            assert answer(verify(token)) == UNAVAILABLE

    @pytest.mark.parametrize(
        "bearer", ["{0},Bearer other", "other,Bearer {0}", "{0} x", "{0}\t", "{0}\xa0", "\xe9{0}"]
    )
    def test_gateway_needs_no_database_to_return_401_for_a_header_without_exactly_one_bearer_token(
        self, token, bearer
    ):
        ring.clear_cache()
        with connection.execute_wrapper(UnavailableDatabase()):
            assert answer(verify(bearer.format(token))) == INVALID


class TestAServerSideErrorOfTheGateway:
    """Tests of server-side errors, after which the gateway returns 503 and lets no request pass."""

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
    def test_gateway_returns_503_if_a_setting_is_invalid(self, ask, token, settings, settings_):
        settings.INSTACCESS = settings_

        assert answer(ask(headers=[("Authorization", f"Bearer {token}")])) == UNAVAILABLE

    @pytest.mark.parametrize("debug", [False, True])
    @pytest.mark.parametrize("settings_", [{"REALM": 'a"b'}, {"REALM": "\xe9"}, ["no", "dictionary"]])
    def test_gateway_returns_503_instead_of_a_refusal_if_a_setting_is_invalid(
        self, ask, issue, settings, settings_, debug, error_mail
    ):
        row, text = issue()
        IssuedToken.objects.filter(pk=row.pk).update(revoked_at=row.issued_at)
        settings.DEBUG, settings.INSTACCESS = debug, settings_

        for headers in ([], [("Authorization", f"Bearer {text}")], [("Authorization", "Bearer x")]):
            assert answer(ask(headers=headers)) == UNAVAILABLE
        assert text not in mailed()

    def test_gateway_returns_503_if_the_key_table_is_empty(self, token):
        Key.objects.all().delete()
        ring.clear_cache()

        assert answer(verify(token)) == UNAVAILABLE

    def test_o6_gateway_returns_503_if_the_key_encryption_key_is_wrong(self, token, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": ["A" * 43]}
        ring.clear_cache()

        assert answer(verify(token)) == UNAVAILABLE

    @pytest.mark.parametrize("error", [RuntimeError, KeyError, MemoryError, RecursionError, UnicodeDecodeError])
    def test_gateway_returns_503_and_logs_no_token_after_an_unexpected_error(
        self, ask, token, monkeypatch, caplog, error
    ):
        def fail(text: str, **kwargs: Any) -> Any:
            if error is UnicodeDecodeError:
                raise UnicodeDecodeError("utf-8", text.encode(), 0, 1, "bad")
            raise error(text)

        monkeypatch.setattr(unwrapping, "unwrap", fail)

        assert answer(ask(headers=[("Authorization", f"Bearer {token}")])) == UNAVAILABLE
        assert error.__name__ in caplog.text
        assert Path(__file__).name in caplog.text
        assert token not in caplog.text

    def test_p12_output_of_a_failing_log_handler_does_not_contain_the_token(self, ask, token, monkeypatch, capsys):
        def fail(text: str, **kwargs: Any) -> Any:
            raise RuntimeError(text)

        class FailingHandler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                try:
                    os.stat("/dev/null/full")
                except OSError:
                    self.handleError(record)

        monkeypatch.setattr(unwrapping, "unwrap", fail)
        monkeypatch.setattr(logging, "raiseExceptions", True)
        handler = FailingHandler()
        logging.getLogger("instaccess").addHandler(handler)
        try:
            assert answer(ask(headers=[("Authorization", f"Bearer {token}")])) == UNAVAILABLE
        finally:
            logging.getLogger("instaccess").removeHandler(handler)

        printed = capsys.readouterr().err
        assert "/dev/null/full" in printed
        assert token not in printed

    def test_gateway_refuses_an_authorization_header_that_is_not_ascii(self):
        for value in ("Bearer \xff\xfe", "Bearer é.é.é.é.é", "\x00", "Bearer a\x00b"):
            for response in (
                by_wsgi(headers=[("Authorization", value)]),
                by_asgi_server([("Authorization", value)]),
            ):
                assert answer(response) == INVALID
