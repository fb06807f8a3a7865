"""Percentages, durations and dates of a document, exactly: as whole buckets, milliseconds and seconds."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal

from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.field import Field

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,16})?)%")
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_LONGEST_MS = 10 * 365 * _UNITS_MS["d"]
_PER_PERCENT = BUCKETS // 100


def percent(field: Field) -> int:
    """The percentage in buckets: 1 % is 10 000 of them, 0.0001 % is one.

    Raises: InvalidArgument unless it is a number or text such as "12.5%", from 0 to 100 with at most four decimals.
    """
    refusal = field.refuse("a percentage from 0 to 100 with at most four decimals")
    value = field.value
    if isinstance(value, str):
        parts = _PERCENT.fullmatch(value)
        if parts is None:
            raise refusal
        exact = Decimal(parts[1])
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
        exact = Decimal(repr(value))  # what was written, not the nearest binary fraction
    else:
        raise refusal
    buckets = exact * _PER_PERCENT
    if not 0 <= exact <= 100 or buckets != int(buckets):
        raise refusal
    return int(buckets)


def percent_text(buckets: int) -> str:
    """The canonical text of a number of buckets: "50%", "12.5%", "0.0001%"."""
    whole, part = divmod(buckets, _PER_PERCENT)
    decimals = f"{part:04d}".rstrip("0")
    return f"{whole}.{decimals}%" if decimals else f"{whole}%"


def duration_ms(field: Field, *, least_ms: int = 0) -> int:
    """The duration in milliseconds, from text such as "500ms", "30s", "5m", "2h", "14d"."""
    parts = _DURATION.fullmatch(field.value) if isinstance(field.value, str) else None
    if parts is None:
        raise field.refuse('a duration such as "500ms", "30s", "5m", "2h" or "14d"')
    length = int(parts[1]) * _UNITS_MS[parts[2]]
    if length > _LONGEST_MS:
        raise field.refuse("a duration of at most ten years")
    if length < least_ms:
        raise field.refuse(f"a duration of at least {duration_text(least_ms)}")
    return length


def duration_text(length_ms: int) -> str:
    """The canonical text: the largest unit in which the duration is a whole number."""
    for unit, size in _UNITS_MS.items():
        if length_ms % size == 0 and length_ms >= size:
            return f"{length_ms // size}{unit}"
    return "0s"


def instant_s(field: Field) -> int:
    """Seconds since the epoch of a date (its first moment in UTC) or of a date and time with its offset."""
    allowed = "a date such as 2027-01-31 or a time with its offset such as 2027-01-31T12:00:00Z"
    value = field.value
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif isinstance(value, str):
        moment = _moment(value, field, allowed)
    else:
        raise field.refuse(allowed)
    if moment.tzinfo is None or moment.microsecond:
        raise field.refuse(allowed)
    return int(moment.timestamp())


def instant_text(second: int) -> str:
    """The canonical text: UTC, to the second."""
    return datetime.fromtimestamp(second, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str, field: Field, allowed: str) -> datetime:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:]{5,8}(Z|[+-][0-9]{2}:[0-9]{2}))?", text) is None:
        raise field.refuse(allowed)
    try:
        moment = datetime.fromisoformat(text)
        if len(text) == 10:
            moment = moment.replace(tzinfo=UTC)
        moment.timestamp()
    except (ValueError, OverflowError):
        raise field.refuse(allowed) from None
    return moment
