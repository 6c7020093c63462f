"""Tests of log lines as JSON: each value of a log line is a separate field."""

from __future__ import annotations

import ast
import json
import logging
import logging.config
import re
import sys
import uuid
from enum import StrEnum
from io import StringIO

import pytest

from instaccess.logs import get_logger
from tests.support import log_lines, readme
from tests.support.log_lines import CALLS, PACKAGE
from tests.support.verifying import verify

# `logging` and Django use these names for attributes of a record, so a value of a log line must have a different
# name.
RESERVED = {
    *vars(logging.makeLogRecord({})),
    "message",
    "asctime",
    "taskName",
    "request",
    "status_code",
    "server_time",
}


class TestEveryLine:
    def test_more_than_forty_log_lines_of_the_package_are_found(self):
        assert len(CALLS) > 40

    @pytest.mark.parametrize("line", CALLS, ids=str)
    def test_log_line_has_at_least_one_named_value(self, line):
        assert line.names - {None}

    @pytest.mark.parametrize("line", CALLS, ids=str)
    def test_log_line_has_no_value_without_a_name(self, line):
        positional = [argument for argument in line.call.args if argument not in line.texts]
        placeholders = "".join(text.value for text in line.texts if isinstance(text, ast.Constant))

        # The text, and the level in a call of `log`, are the only arguments that may be positional.
        assert len(positional) <= (line.call.func.attr == "log") + (not line.texts)
        assert not re.search(r"%[^(%]", placeholders)

    @pytest.mark.parametrize("line", CALLS, ids=str)
    def test_log_line_has_a_value_for_each_placeholder(self, line):
        assert line.placeholders <= line.names

    @pytest.mark.parametrize("line", CALLS, ids=str)
    def test_no_value_in_a_log_line_has_the_name_of_a_standard_log_record_attribute(self, line):
        assert not line.names & RESERVED

    def test_no_module_except_logs_calls_getlogger(self):
        others = [path for path in PACKAGE.rglob("*.py") if path.name != "logs.py"]

        assert [path for path in others if "getLogger" in path.read_text()] == []


class TestThePageOfLogLines:
    def test_page_of_log_lines_lists_each_log_line_with_its_logger_its_level_and_its_fields(self):
        # If this test fails, run `python -m tests.support.log_lines`, which writes the table again.
        assert log_lines.table() in readme.page("log-lines.md")


class Color(StrEnum):
    RED = "red"


class TestALogger:
    def test_log_record_contains_each_value_in_its_text_and_in_a_field(self, caplog):
        get_logger("instaccess.test").warning("refused reason=%(reason)s jti=%(jti)r", reason=Color.RED, jti="a")

        [record] = caplog.records
        assert record.getMessage() == "refused reason=red jti='a'"
        assert (record.reason, record.jti) == ("red", "a")

    @pytest.mark.parametrize(
        ("value", "field"),
        [
            (None, None),
            (7, 7),
            (Color.RED, "red"),
            (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
            ((Color.RED, 1), ["red", 1]),
            ({"n": Color.RED}, {"n": "red"}),
        ],
    )
    def test_fields_of_a_log_record_contain_only_values_that_json_can_represent(self, caplog, value, field):
        get_logger("instaccess.test").warning("text", value=value)

        assert json.loads(json.dumps(caplog.records[0].value)) == field
        assert type(caplog.records[0].value) is type(field)

    @pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
    def test_log_record_contains_the_level_and_the_file_of_the_caller(self, caplog, level):
        caplog.set_level(logging.DEBUG, "instaccess.test")
        getattr(get_logger("instaccess.test"), level)("text", value=1)

        assert (caplog.records[0].levelname, caplog.records[0].filename) == (level.upper(), "test_logs.py")


@pytest.fixture
def lines():
    """Apply the documented LOGGING with JSON. Yields a function that returns the log lines as objects."""
    [code] = [each.code for each in readme.snippets(readme.page("logging.md")) if "pythonjsonlogger" in each.code]
    names: dict = {}
    exec(code, names)
    stream = StringIO()
    before = [
        (logger, logger.level, list(logger.handlers), logger.propagate)
        for logger in map(logging.getLogger, ("", "instaccess"))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        logging.config.dictConfig(names["LOGGING"])
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger, level, handlers, propagate in before:
        logger.level, logger.handlers, logger.propagate = level, handlers, propagate


@pytest.mark.django_db
@pytest.mark.usefixtures("initial_keys")
class TestJSON:
    def test_json_log_line_of_an_issued_token_contains_the_user_the_client_id_and_the_address(
        self, lines, post, access_token, user
    ):
        post(access_token)

        [line] = [line for line in lines() if line.get("signing_kid")]
        assert (line["name"], line["levelname"], line["user"]) == ("instaccess.issuer", "INFO", user.pk)
        assert line["client_id"] == access_token.application.client_id
        assert line["ip_address"] == "127.0.0.1"
        assert line["message"].startswith(f"issued jti={line['jti']} ")

    def test_json_log_line_of_a_refusal_by_the_issuer_contains_the_reason_and_the_client_address(self, lines, post):
        post("no-such-token")

        assert {line["reason"] for line in lines()} == {"unknown_token"}
        assert {line["ip_address"] for line in lines()} == {"127.0.0.1"}

    def test_json_log_line_of_a_refusal_of_the_gateway_has_its_fields_on_one_line(self, lines):
        verify("a.b.c\n.d.e")

        [line] = lines()
        assert (line["name"], line["reason"], line["jti"]) == ("instaccess.gateway", "malformed_header", "")

    def test_json_log_lines_of_a_rotation_contain_the_new_key(self, lines):
        from instaccess import keys

        rotation = keys.rotate("sig", force=True)

        assert rotation.activated.kid in {line["kid"] for line in lines()}

    def test_json_log_lines_contain_the_request_id_of_the_project(self, lines, client, settings):
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django_guid"]
        settings.MIDDLEWARE = ["django_guid.middleware.guid_middleware", *settings.MIDDLEWARE]
        sent = uuid.uuid4().hex

        client.post("/api/v1/inst_access_tokens", headers={"Correlation-ID": sent})
        client.post("/api/v1/inst_access_tokens", headers={"Correlation-ID": "forged\x1b[2J" * 100})

        ids = [line["correlation_id"] for line in lines() if line["name"] == "instaccess.issuer"]
        assert ids[0] == sent
        assert re.fullmatch(r"[0-9a-f-]{32,36}", ids[1])
