"""The trace of one sampled call: its place in the caller's trace, and the run that it was part of.

Source: W3C Trace Context, level 2, traceparent.
"""

import re
from typing import Final

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_SAMPLED: Final = 1
_MOST_LINKS: Final = 32


class CallTrace:
    """What a call that is sampled carries with it.

    `method` is what was called, such as a service of gRPC and its method; `state` is the caller's tracestate.
    """

    __slots__ = (
        "batch_calls",
        "batch_rows",
        "input_ns",
        "links",
        "method",
        "parent_id",
        "span_id",
        "state",
        "trace_id",
    )

    def __init__(self, trace_id: str, parent_id: str, span_id: str) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.span_id = span_id
        self.state = ""
        self.method = ""
        self.batch_calls = 0
        self.batch_rows = 0
        self.input_ns = 0
        self.links: list[tuple[str, str]] = []

    def ran(self, calls: int, rows: int, input_ns: int, mates: list["CallTrace"]) -> None:
        """Notes the run that gives the outcome; of `mates`, the sampled calls in it, the others are linked."""
        self.batch_calls = calls
        self.batch_rows = rows
        self.input_ns = input_ns
        self.links = [(mate.trace_id, mate.span_id) for mate in mates if mate is not self][:_MOST_LINKS]


def parent_of(traceparent: str) -> tuple[str, str, bool] | None:
    """Returns trace, span and whether the caller samples it; None for what is no traceparent, which is as none."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    release, trace_id, span_id, flags, more = match.groups()
    if release == "ff" or (release == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return trace_id, span_id, bool(int(flags, 16) & _SAMPLED)
