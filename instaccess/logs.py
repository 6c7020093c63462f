"""Loggers that store the values of each line as fields of the log record, so that a JSON formatter can write them.

This package writes every log line with a logger from `get_logger`. Each value has the same name as in the text
`name=value` of the message, such as `reason` or `jti`. The names have no prefix, and differ from the names of the
standard attributes of a log record. `tests/test_logs.py` fails if a line has no values, or if a name is a standard
attribute.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Any


class Logger:
    """A logger that accepts values by name, as arguments of the message and as fields of the log record."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._logger = logging.getLogger(name)

    def debug(self, message: str, /, **facts: Any) -> None:
        """Log a line with the level DEBUG."""
        self.log(logging.DEBUG, message, stacklevel=3, **facts)

    def info(self, message: str, /, **facts: Any) -> None:
        """Log a line with the level INFO."""
        self.log(logging.INFO, message, stacklevel=3, **facts)

    def warning(self, message: str, /, **facts: Any) -> None:
        """Log a line with the level WARNING."""
        self.log(logging.WARNING, message, stacklevel=3, **facts)

    def error(self, message: str, /, **facts: Any) -> None:
        """Log a line with the level ERROR."""
        self.log(logging.ERROR, message, stacklevel=3, **facts)

    def log(self, level: int, message: str, /, *, stacklevel: int = 2, **facts: Any) -> None:
        """Log a line.

        Args:
            level: the level, such as `logging.INFO`.
            message: the text with placeholders such as `%(reason)s`.
            stacklevel: selects the caller whose file and line the record contains, as in `logging.Logger.log`.
            facts: the values of the placeholders, and further values. All values become fields of the record.
        """
        if self._logger.isEnabledFor(level):
            fields = {name: _plain(value) for name, value in facts.items()}
            self._logger.log(level, message, facts, extra=fields, stacklevel=stacklevel)


def get_logger(name: str) -> Logger:
    """Return the logger with this name."""
    return Logger(name)


def _plain(value: Any) -> Any:
    """Convert a value to a value that every JSON formatter can write."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
