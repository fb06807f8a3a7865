"""Log lines of every process: time, level, who, where, a constant text and its fields."""

import logging
import sys
from typing import Final

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """One line per event; fields (`extra=`) follow the text as name=value.

    Control characters are escaped, so that what a client sent cannot forge a line or steer a terminal; a stack follows
    on lines of its own.
    """

    def __init__(self, who: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {who} %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in record.__dict__.items() if name not in _OWN)
        return _escaped(super().formatMessage(record) + fields)


def start_logging(who: str, level: str) -> None:
    """Makes this process log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter(who))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
