"""The text about an unexpected exception."""

from __future__ import annotations

from instaccess import web


def fail(token: str) -> None:
    raise ValueError(f"cannot parse {token}")


class TestDescribeUnexpected:
    def test_description_contains_the_class_and_the_frames_but_neither_the_message_nor_local_values(self):
        try:
            fail("the-" + "token")
        except ValueError as error:
            text = web.describe_unexpected(error)

        assert text.splitlines()[0] == "ValueError"
        assert "in fail" in text
        assert "the-token" not in text
