"""Traces of calls as spans in OTLP's protobuf, by the wire.

1. A call is up to three spans: the call itself, its wait for a run, and the run; those inside have ids that follow from
   the call's, so that whoever made them anew would make the same ones. A step of an ensemble is a call inside another.
2. What repeats from call to call (names, kinds, what a decision says) is encoded once and kept. A span begins with what
   has a fixed length, ids and times, and ends with what has not, so that each half is made in one go.

Source: opentelemetry-proto 1.x, trace.proto and common.proto; semantic conventions for RPC servers.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Final

from gateway.telemetry.finished_trace import STEP, FinishedTrace

# As the conventions have it, of gRPC's codes only these are the server's errors.
_SERVER_ERRORS: Final = frozenset({2, 4, 12, 13, 14, 15})
_KEPT_TEMPLATES: Final = 4096
_INTERNAL, _SERVER = 1, 2  # SpanKind
_ERROR: Final = b"\x7a\x02\x18\x02"  # status { code: ERROR }
# Fields of a Span: its trace, itself, its parent; start and end.
_CHILD: Final = Struct("<2s16s2s8s2s8sBqBq")
_ROOT: Final = Struct("<2s16s2s8sBqBq")
_TRACE, _SPAN, _PARENT = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_START, _END = 0x39, 0x41
_SAMPLED, _KNOWS_WHERE, _PARENT_IS_REMOTE = 1, 0x100, 0x200
_OWN: Final = _SAMPLED | _KNOWS_WHERE
_LINK: Final = Struct("<BB2s16s2s8sBI")
_LINK_TAG, _LINK_BYTES, _LINK_FLAGS = 0x6A, 33, 0x35
_WHOLE: Final = (1 << 64) - 1
# W3C Trace Context: a tracestate that is none is not passed on.
_MEMBER: Final = r"[a-z0-9][-a-z0-9_*/@]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_STATE: Final = re.compile(rf"{_MEMBER}(?:[ \t]*,[ \t]*{_MEMBER}){{0,31}}")
_BETWEEN: Final = re.compile(r"[ \t]*,[ \t]*")


def encode_request(
    traces: Iterable[FinishedTrace], resource: Mapping[str, str | int], scope: str, version: str
) -> tuple[bytes, int]:
    """Returns an ExportTraceServiceRequest with the spans of all, and how many those are."""
    parts = [_field(1, _field(1, scope.encode()) + _field(2, version.encode()))]
    spans = 0
    for trace in traces:
        spans += _add_spans(parts, trace)
    told = b"".join([_attribute(1, key, value) for key, value in resource.items()])
    return _field(1, _field(1, told) + _field(2, b"".join(parts))), spans


def _add_spans(parts: list[bytes], trace: FinishedTrace) -> int:
    """Appends the spans of the call, its own first, and returns how many they are."""
    parent, method, code = trace.parent_id, trace.method, trace.code
    ids = bytes.fromhex(trace.trace_id + trace.span_id + parent)
    trace_id, span_id = ids[:16], ids[16:24]
    start_ns = trace.received_ns
    end_ns = start_ns + trace.total_ns
    if parent:
        fixed = _CHILD.pack(
            _TRACE, trace_id, _SPAN, span_id, _PARENT, ids[24:], _START, start_ns, _END, end_ns
        )  # fmt: skip
    else:
        fixed = _ROOT.pack(_TRACE, trace_id, _SPAN, span_id, _START, start_ns, _END, end_ns)
    state = _state_field(trace.state) if trace.state else b""
    template = _server_template(
        method, trace.model, trace.version, trace.arm, trace.revision, trace.reason, code, bool(parent)
    )
    named = trace.request_id.encode()
    rest = b"".join((state, template, _rows(trace.rows), _request_id(len(named)), named))
    parts += (_heading(len(fixed) + len(rest)), fixed, rest)
    spans = 1
    start_ns = trace.queued_ns
    if start_ns:
        end_ns = start_ns + trace.queue_ns
        fixed = _CHILD.pack(
            _TRACE, trace_id, _SPAN, _inner(span_id, 1), _PARENT, span_id, _START, start_ns, _END, end_ns
        )  # fmt: skip
        rest = state + _QUEUE if state else _QUEUE
        parts += (_heading(len(fixed) + len(rest)), fixed, rest)
        spans += 1
    if trace.infer_ns:
        start_ns += trace.queue_ns + trace.input_ns
        end_ns = start_ns + trace.infer_ns
        fixed = _CHILD.pack(
            _TRACE, trace_id, _SPAN, _inner(span_id, 2), _PARENT, span_id, _START, start_ns, _END, end_ns
        )  # fmt: skip
        rest = state + _run(trace.batch_calls, trace.batch_rows)
        if trace.links:
            rest += b"".join([_link(mate, span) for mate, span in trace.links])
        parts += (_heading(len(fixed) + len(rest)), fixed, rest)
        spans += 1
    return spans


def _inner(call_id: bytes, place: int) -> bytes:
    """Returns the id of a span within the call's: the next, or the one after it."""
    last = call_id[7] + place
    if last < 256:
        return call_id[:7] + _BYTES[last]
    return ((int.from_bytes(call_id, "big") + place) & _WHOLE or place).to_bytes(8, "big")


def _link(trace_id: str, span_id: str) -> bytes:
    ids = _TRACE, bytes.fromhex(trace_id), _SPAN, bytes.fromhex(span_id)
    return _LINK.pack(_LINK_TAG, _LINK_BYTES, *ids, _LINK_FLAGS, _OWN | _PARENT_IS_REMOTE)


@lru_cache(_KEPT_TEMPLATES)
def _server_template(
    method: str, model: str, version: str, arm: str, revision: int, reason: str, code: int, has_parent: bool
) -> bytes:
    """Returns what all calls of a decision with that outcome have in common."""
    own: dict[str, str | int] = {
        "gateway.model": model,
        "gateway.version": version,
        "gateway.arm": arm,
        "gateway.revision": revision,
        "gateway.reason": reason,
        "rpc.grpc.status_code": code,
    }
    service, _, called = method.partition("/")
    inside = method.startswith(STEP)
    if "." in service and not inside:
        own |= {"rpc.system": "grpc", "rpc.service": service, **({"rpc.method": called} if called else {})}
    return b"".join(
        (
            _named(method, _INTERNAL if inside else _SERVER),
            _flags(_OWN | _PARENT_IS_REMOTE if has_parent and not inside else _OWN),
            *(_attribute(9, key, value) for key, value in own.items()),
            _ERROR if code in _SERVER_ERRORS else b"",
        )
    )


@lru_cache(_KEPT_TEMPLATES)
def _rows(rows: int) -> bytes:
    return _attribute(9, "gateway.rows", rows)


@lru_cache(_KEPT_TEMPLATES)
def _run(calls: int, rows: int) -> bytes:
    """Returns what all runs of so many calls and rows have in common."""
    told = _attribute(9, "gateway.batch.calls", calls) + _attribute(9, "gateway.batch.rows", rows)
    return _named("run", _INTERNAL) + _flags(_OWN) + told


@lru_cache(_KEPT_TEMPLATES)
def _request_id(length: int) -> bytes:
    """Returns the attribute of a request id of so many bytes, up to those."""
    value = b"\x0a" + _varint(length)
    key = _field(1, b"gateway.request_id") + b"\x12" + _varint(len(value) + length) + value
    return b"\x4a" + _varint(len(key) + length) + key


@lru_cache(_KEPT_TEMPLATES)
def _heading(length: int) -> bytes:
    """Returns what comes before a span of so many bytes."""
    return b"\x12" + _varint(length)


@lru_cache(_KEPT_TEMPLATES)
def _state_field(state: str) -> bytes:
    return _field(3, _BETWEEN.sub(",", state).encode()) if _STATE.fullmatch(state) else b""


def _named(name: str, kind: int) -> bytes:
    return _field(5, name.encode()) + b"\x30" + _varint(kind)


def _flags(flags: int) -> bytes:
    return b"\x85\x01" + flags.to_bytes(4, "little")


def _attribute(number: int, key: str, value: str | int) -> bytes:
    """Returns a KeyValue as the field of that number."""
    told = _field(1, value.encode()) if isinstance(value, str) else b"\x18" + _varint(value & _WHOLE)
    return _field(number, _field(1, key.encode()) + _field(2, told))


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of bytes; `number` is below 16."""
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


_BYTES: Final = tuple(bytes((number,)) for number in range(256))
_QUEUE: Final = _named("queue", _INTERNAL) + _flags(_OWN)
