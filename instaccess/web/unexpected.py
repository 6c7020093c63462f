"""The description of unexpected exceptions for the log, without any value from a request."""

from __future__ import annotations

import traceback


def describe_unexpected(error: BaseException) -> str:
    """Return the class name and the stack frames of an exception.

    The text contains neither the exception's message nor the local variables of the frames, because the message and
    the variables can contain a token. Call this function inside the `except` block, and log the text after the block
    has ended. Within the block, log handlers and error reporters can reach the exception and its frames through
    `sys.exc_info()`. If a log handler raises an error within the block, the `__context__` of the error is the
    exception.

    For example:

        unexpected = ""
        try:
            ...
        except Exception as error:
            unexpected = web.describe_unexpected(error)
        if unexpected:
            logger.error("the inspector could not check the token: %(detail)s", detail=unexpected)
    """
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    return f"{type(error).__name__}\n{frames}"
