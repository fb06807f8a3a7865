"""Spans of time as an operator writes them: a range of dates or times, or the last so many days."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.errors import InvalidArgument

DAY_US: Final = 86_400_000_000
_UNITS_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY_US, "w": 7 * DAY_US}
_AGO = re.compile(r"(\d{1,6})([smhdw])")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """From `start_us` on, up to but without `end_us`. Units: microseconds since the epoch."""

    start_us: int
    end_us: int

    def __str__(self) -> str:
        return f"{moment_text(self.start_us)} to {moment_text(self.end_us)}"

    @property
    def length_us(self) -> int:
        return self.end_us - self.start_us


def parse_span(text: str, *, now_us: int) -> Span:
    """The span that a text means: "2026-11-01..2026-11-08" (without the 8th), "7d", "2026-11-01" (that day), or ISO
    8601 times at either end of "..", the end left out for now. A time without a zone is UTC.

    Raises: InvalidArgument.
    """
    given = text.strip()
    if ago := _AGO.fullmatch(given):
        length = int(ago[1]) * _UNITS_US[ago[2]]
        if not 0 < length < now_us:
            raise InvalidArgument(f"window {text!r} is no span of time, expected for example 7d or 36h")
        return Span(now_us - length, now_us)
    start, dots, end = given.partition("..")
    begin = _moment_us(start, text)
    if not dots:
        if not _DATE.fullmatch(given):
            raise InvalidArgument(f"window {text!r} is one moment, expected START..END, a date, or for example 7d")
        return Span(begin, begin + DAY_US)
    span = Span(begin, _moment_us(end, text) if end.strip() else now_us)
    if span.end_us <= span.start_us:
        raise InvalidArgument(f"window {text!r} ends before it begins, expected START..END with END later")
    return span


def parse_length_us(text: str) -> int:
    """A length of time such as 30m, 6h, 1d. Raises: InvalidArgument."""
    match = _AGO.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise InvalidArgument(f"length of time {text!r}, expected for example 30m, 6h or 1d")
    return int(match[1]) * _UNITS_US[match[2]]


def is_span(text: str) -> bool:
    """Returns whether a text is meant as a span of time, right or wrong."""
    given = text.strip()
    return bool(_AGO.fullmatch(given) or ".." in given.replace("../", "") or _DATE.fullmatch(given))


def moment_text(moment_us: int) -> str:
    """ISO 8601 in UTC, without what is zero at the end: 2026-11-01, 2026-11-01T06:30Z."""
    moment = _EPOCH + timedelta(microseconds=moment_us)
    if moment_us % DAY_US == 0:
        return f"{moment:%Y-%m-%d}"
    form = "%Y-%m-%dT%H:%M" if moment_us % 60_000_000 == 0 else "%Y-%m-%dT%H:%M:%S"
    return f"{moment:{form}}Z"


def _moment_us(part: str, text: str) -> int:
    try:
        moment = datetime.fromisoformat(part.strip())
    except ValueError:
        raise InvalidArgument(
            f"window {text!r}: {part.strip()!r} is no date or time, expected for example 2026-11-01 or 2026-11-01T06:00"
        ) from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)
