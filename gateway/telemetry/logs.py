"""Log lines of every process: time, level, who, where, a constant text and its fields; as text or as JSON."""

import logging
import os
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

import msgspec

FORMATS: Final = ("text", "json")
_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_SAID: Final = "said"
_log = logging.getLogger(__name__)


class FieldFormatter(logging.Formatter):
    """One line per event; fields (`extra=`) follow the text as name=value, but those under `said`: the text has them.

    Control characters are escaped, so that what a client sent cannot forge a line or steer a terminal; a stack follows
    on lines of its own.
    """

    def __init__(self, who: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {who} %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items() if name != _SAID)
        return _escaped(super().formatMessage(record) + fields)


class JsonFormatter(logging.Formatter):
    """One JSON object per event, on one line, its stack in it.

    `event` is the same for all events of a kind: the one that the program names, else the text before its values are
    put in. Fields stand beside it, those under `said` as well; one named as a part of the line is `field_<name>`.
    """

    def __init__(self, who: str) -> None:
        super().__init__()
        self._process = {"process": who, "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        fields = _fields(record)
        said = fields.pop(_SAID, None)
        fields |= said if isinstance(said, dict) else {}
        line: dict[str, object] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            **self._process,
            "logger": record.name,
            "event": str(fields.pop("event", record.msg)),
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _described(record.exc_info[1])
        line |= {f"field_{name}" if name in line else name: value for name, value in fields.items()}
        return msgspec.json.encode(line, enc_hook=str).decode()


def start_logging(who: str, level: str, form: str = "text") -> None:
    """Makes this process log to standard error; as JSON also what it would die of, and Python's warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(who) if form == "json" else FieldFormatter(who))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if form == "json":
        logging.captureWarnings(True)
        sys.excepthook = _died
        threading.excepthook = _thread_died


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _OWN}


def _described(error: BaseException) -> dict[str, object]:
    stack = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error), "stack": stack}


def _died(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _log.critical("the process ends by an error", exc_info=error, extra={"said": {"event": "process.failed"}})


def _thread_died(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
        name = told.thread.name if told.thread is not None else ""
        _log.critical(
            "a thread ended by an error",
            exc_info=told.exc_value,
            extra={"said": {"event": "thread.failed", "thread": name}},
        )


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
