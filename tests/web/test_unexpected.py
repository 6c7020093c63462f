"""Tests of the text that describes an unexpected exception."""

from __future__ import annotations

from instaccess import web


def fail(token: str) -> None:
    raise ValueError(f"cannot parse {token}")


class TestDescribeUnexpected:
    def test_description_of_an_exception_contains_class_and_frames_but_no_message_and_no_local_values(self):
        try:
            fail("the-" + "token")
        except ValueError as error:
            text = web.describe_unexpected(error)

        assert text.splitlines()[0] == "ValueError"
        assert "in fail" in text
        assert "the-token" not in text
