"""Tests that no log, error report, debug page, dump or `repr` contains a token or a private key."""

from __future__ import annotations

import json
import logging
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core import mail
from django.core.management import call_command
from django.db import connection

import instaccess
from instaccess import tokens
from instaccess.conf import conf
from instaccess.keys import ring as keys_ring
from instaccess.models import IssuedToken, Key
from tests.conftest import ISSUE_URL
from tests.support.answers import UNAVAILABLE, answer
from tests.support.mailing import mailed

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")
PACKAGE = str(Path(instaccess.__file__).parent)


class EverythingLogged(logging.Handler):
    """A log handler that records messages, tracebacks, and for errors the variables that an error reporter reads.

    An error reporter reads the variables in the frames of the exception and in the frames that called the logger.
    """

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))
        if record.levelno < logging.ERROR:
            return
        frame = sys._getframe()
        while frame is not None:
            self.read(frame)
            frame = frame.f_back
        trace = record.exc_info[2] if record.exc_info else None
        while trace is not None:
            self.read(trace.tb_frame)
            trace = trace.tb_next

    def read(self, frame):
        if frame.f_code.co_filename.startswith(PACKAGE):
            # Skip exceptions, because their messages come from code outside this package and can contain secrets.
            variables = frame.f_locals.items()
            self.lines += [f"{name} = {value!r}" for name, value in variables if not isinstance(value, Exception)]

    @property
    def text(self):
        return "\n".join(self.lines)


@pytest.fixture
def logged():
    handler = EverythingLogged()
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    before = [(logger, logger.level, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.disabled = False
        if logger is logging.root or not logger.propagate:
            logger.addHandler(handler)
    yield handler
    for logger, level, disabled in before:
        logger.setLevel(level)
        logger.disabled = disabled
        logger.removeHandler(handler)


@pytest.fixture
def encoded_tokens(monkeypatch):
    """Return a list that collects every signed or encrypted token, even if the token is never sent."""
    texts = []

    def watched(function):
        def call(*args, **kwargs):
            texts.append(function(*args, **kwargs))
            return texts[-1]

        return call

    monkeypatch.setattr(tokens, "sign", watched(tokens.sign))
    monkeypatch.setattr(tokens, "encrypt", watched(tokens.encrypt))
    return texts


@pytest.fixture
def secrets_of(encoded_tokens, access_token):
    """Return a function that returns the current secrets: the access token, parts of tokens, and private members."""

    def secrets_():
        parts = [access_token.token]
        for text in encoded_tokens:
            # Skip the header, because the header is not secret. The other segments are secret, because an attacker
            # could use them to forge the token.
            parts += [part for part in text.split(".")[1:] if len(part) > 20]
        return parts + private_members()

    return secrets_


def private_members():
    ring = keys_ring.current_ring()
    return [key.private().reveal()[member] for key in ring.keys if key.has_private for member in PRIVATE_MEMBERS]


def find_leaks(secrets_, text):
    return [secret for secret in secrets_ if secret in text]


def make_fail(kind, monkeypatch, settings):
    """Make the step of issuing with the name `kind` fail with an unexpected error."""
    if kind == "hook":
        settings.INSTACCESS = {"CLAIMS_HOOK": failing_hook}
    elif kind == "encrypt":
        monkeypatch.setattr(tokens, "encrypt", failing_encrypt)
    elif kind == "authenticate":
        settings.OAUTH2_PROVIDER = {
            **settings.OAUTH2_PROVIDER,
            "OAUTH2_VALIDATOR_CLASS": "tests.test_no_leaks.LeakingValidator",
        }


def failing_hook(user, application):
    raise ZeroDivisionError("the hook")


def failing_encrypt(jws, key, **kwargs):
    raise ZeroDivisionError("the encryption")


class LeakingValidator:
    """A validator whose error message contains the access token."""

    def validate_bearer_token(self, token, scopes, request):
        raise RuntimeError(f"could not look {token} up")


def failing_insert(execute, sql, params, many, context):
    if sql.startswith("INSERT") and "issuedtoken" in sql:
        raise OSError("the disk")
    return execute(sql, params, many, context)


class FailAfterTheView:
    """A middleware that fails after the view has returned, while a local variable contains the response."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        raise ZeroDivisionError(f"after the view, which answered {response.status_code}")


class TestIssuingAToken:
    @pytest.mark.parametrize("debug", [False, True])
    def test_p12_issuing_logs_no_token(self, post, access_token, logged, secrets_of, settings, debug):
        settings.DEBUG = debug
        response = post(access_token, headers={"User-Agent": "client"})

        assert response.status_code == 201
        assert "issued jti=" in logged.text
        assert find_leaks(secrets_of(), logged.text) == []

    def test_p12_issuing_stores_no_token_in_the_database(self, post, access_token, encoded_tokens):
        post(access_token)

        out = StringIO()
        call_command("dumpdata", "instaccess", stdout=out)
        assert json.loads(out.getvalue())
        assert (
            find_leaks(
                [access_token.token, *(part for text in encoded_tokens for part in text.split("."))], out.getvalue()
            )
            == []
        )

    def test_p12_issuing_sends_the_access_token_to_the_database_only_as_its_checksum(
        self, post, access_token, secrets_of, django_assert_max_num_queries
    ):
        with django_assert_max_num_queries(20) as queries:
            post(access_token)

        assert find_leaks(secrets_of(), "\n".join(query["sql"] for query in queries)) == []


class TestARefusedRequest:
    @pytest.mark.parametrize("scope", ["read", "url:POST|/api/v1/inst_access_tokens"])
    def test_p12_log_line_of_a_refusal_does_not_contain_the_access_token(
        self, post, make_access_token, logged, scope
    ):
        token = make_access_token(scope=scope, user=None, application=None)
        post(token)
        post(f"{token.token} {token.token}")
        post(f"{token.token},x")

        assert "refused reason=" in logged.text
        assert token.token not in logged.text

    def test_p9_log_contains_only_the_jti_of_an_inst_access_token_that_is_the_bearer_token(
        self, post, access_token, logged, encoded_tokens
    ):
        post(access_token)
        signed, encrypted = encoded_tokens
        post(signed)
        post(encrypted)
        post(signed[:-4] + "AAAA")

        assert str(IssuedToken.objects.get().jti) in logged.text
        assert (
            find_leaks(
                [part for text in encoded_tokens for part in text.split(".")[1:] if len(part) > 20], logged.text
            )
            == []
        )


@pytest.mark.parametrize("debug", [False, True])
class TestAnErrorInsideIssuing:
    @pytest.mark.parametrize("kind", ["hook", "encrypt"])
    def test_p12_error_while_issuing_leaks_no_secret_into_a_log_or_an_error_report(
        self, post, access_token, logged, secrets_of, error_mail, monkeypatch, settings, debug, kind
    ):
        settings.DEBUG = debug
        make_fail(kind, monkeypatch, settings)
        response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert "Error" in logged.text
        assert mail.outbox
        assert find_leaks(secrets_of(), logged.text) == []
        assert find_leaks(secrets_of(), mailed()) == []

    def test_p12_error_after_encryption_leaks_no_secret_into_a_log_or_an_error_report(
        self, post, access_token, logged, secrets_of, encoded_tokens, error_mail, settings, debug
    ):
        settings.DEBUG = debug
        with connection.execute_wrapper(failing_insert):
            response = post(access_token)

        assert answer(response) == UNAVAILABLE
        assert len(encoded_tokens) == 2
        assert "OSError: the disk" in logged.text
        assert find_leaks(secrets_of(), logged.text) == []
        assert find_leaks(secrets_of(), mailed()) == []

    def test_p12_log_omits_the_access_token_even_if_the_error_message_contains_the_token(
        self, post, access_token, logged, monkeypatch, settings, debug
    ):
        settings.DEBUG = debug
        make_fail("authenticate", monkeypatch, settings)

        assert answer(post(access_token)) == UNAVAILABLE
        assert "could not look [credential] up" in logged.text
        assert access_token.token not in logged.text

    def test_p12_error_report_omits_the_access_token_even_if_the_error_message_contains_the_token(
        self, post, access_token, error_mail, monkeypatch, settings, debug
    ):
        settings.DEBUG = debug
        make_fail("authenticate", monkeypatch, settings)

        assert answer(post(access_token)) == UNAVAILABLE
        assert "could not look [credential] up" in mailed()
        assert access_token.token not in mailed()

    def test_p8_error_while_issuing_leaks_no_access_token_that_was_sent_in_a_form(
        self, post, access_token, logged, secrets_of, monkeypatch, settings, debug
    ):
        settings.DEBUG = debug
        make_fail("authenticate", monkeypatch, settings)
        settings.INSTACCESS = {"ALLOW_TOKEN_IN_PARAMETERS": True}
        body = f"access_token={access_token.token}".encode()
        response = post(data=body, content_type="application/x-www-form-urlencoded")

        assert answer(response) == UNAVAILABLE
        assert "[credential]" in logged.text
        assert find_leaks(secrets_of(), logged.text) == []

    def test_p8_error_message_is_omitted_if_the_credentials_cannot_be_read(
        self, post, access_token, logged, secrets_of, monkeypatch, settings, debug
    ):
        settings.DEBUG = debug
        make_fail("authenticate", monkeypatch, settings)
        settings.INSTACCESS = {"ALLOW_TOKEN_IN_PARAMETERS": "yes"}

        assert answer(post(access_token)) == UNAVAILABLE
        assert find_leaks(secrets_of(), logged.text) == []


@pytest.mark.parametrize("debug", [False, True])
class TestAnErrorOfTheProjectAfterIssuing:
    def test_p12_error_after_issuing_leaks_no_secret_into_a_log_an_error_report_or_a_debug_page(
        self, client, access_token, logged, secrets_of, error_mail, settings, debug
    ):
        settings.DEBUG = debug
        settings.MIDDLEWARE = ["tests.test_no_leaks.FailAfterTheView", *settings.MIDDLEWARE]
        client.raise_request_exception = False
        response = client.post(
            ISSUE_URL,
            data=b"x=1",
            content_type="application/x-www-form-urlencoded",
            headers={"Authorization": f"Bearer {access_token.token}"},
        )

        assert response.status_code == 500
        assert IssuedToken.objects.count() == 1
        assert "after the view, which answered 201" in mailed()
        for text in (logged.text, mailed(), response.content.decode()):
            assert find_leaks(secrets_of(), text) == []

    def test_p8_error_report_in_production_omits_an_access_token_that_was_sent_in_a_form(
        self, client, access_token, error_mail, settings, debug
    ):
        settings.DEBUG = False
        settings.INSTACCESS = {"ALLOW_TOKEN_IN_PARAMETERS": debug}
        settings.MIDDLEWARE = ["tests.test_no_leaks.FailAfterTheView", *settings.MIDDLEWARE]
        client.raise_request_exception = False
        body = f"access_token={access_token.token}".encode()
        client.post(ISSUE_URL, data=body, content_type="application/x-www-form-urlencoded")

        assert "after the view" in mailed()
        assert access_token.token not in mailed()


class TestRepresentationsOfObjects:
    def test_a1_repr_of_a_key_shows_no_private_member(self, post, access_token):
        post(access_token)
        ring = keys_ring.current_ring()
        objects = [ring, *ring.keys, *Key.objects.all(), *(key.private() for key in ring.keys)]
        objects += [ring.verification_keys(), ring.decryption_keys()]

        text = "\n".join(f"{thing!r} {thing!s}" for thing in objects)
        assert ring.signing_key().kid in text
        assert find_leaks(private_members(), text) == []

    def test_a1_repr_of_an_issued_token_shows_no_token(self, post, access_token, encoded_tokens):
        post(access_token)
        row = IssuedToken.objects.get()

        assert (
            find_leaks(
                [part for text in encoded_tokens for part in text.split(".")], f"{row!r} {row!s} {row.__dict__}"
            )
            == []
        )

    def test_a1_repr_of_the_settings_shows_no_key_encryption_key(self):
        keks = [kek.reveal() for kek in conf.key_encryption_keys]
        assert not any(kek.hex() in repr(conf) or str(kek) in repr(conf) for kek in keks)


class TestADumpOfTheDatabase:
    def test_a1_dump_contains_private_keys_only_encrypted_at_rest(self):
        out = StringIO()
        call_command("dumpdata", "instaccess", stdout=out)

        assert Key.objects.first().kid in out.getvalue()
        assert find_leaks(private_members(), out.getvalue()) == []

    def test_a1_dump_contains_public_keys_without_private_members(self):
        for row in Key.objects.all():
            assert not set(PRIVATE_MEMBERS) & row.public_jwk.keys()
