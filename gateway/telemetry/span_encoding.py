"""Traces of calls as spans in OTLP's protobuf, by the wire.

1. A call is up to three spans: the call itself, its wait for a run, and the run; those inside have ids that follow from
   the call's, so that whoever made them anew would make the same ones. A step of an ensemble is a call inside another.
2. What repeats from call to call (names, kinds, what a decision says) is encoded once and kept; ids, times and rows are
   put between.

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
# Fields of a Span: both ids; its parent; start and end; flags.
_IDS: Final = Struct("<2s16s2s8s")
_PARENT: Final = b"\x22\x08"
_TIMES: Final = Struct("<BQBQ")
_START, _END = 0x39, 0x41
_SAMPLED, _KNOWS_WHERE, _PARENT_IS_REMOTE = 1, 0x100, 0x200
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
    spans: list[bytes] = []
    for trace in traces:
        _add_spans(spans, trace)
    told = b"".join(_attribute(1, key, value) for key, value in resource.items())
    named = _field(1, scope.encode()) + _field(2, version.encode())
    of_scope = b"".join((_field(1, named), *(part for span in spans for part in (b"\x12", _varint(len(span)), span))))
    return _field(1, _field(1, told) + _field(2, of_scope)), len(spans)


def _add_spans(spans: list[bytes], trace: FinishedTrace) -> None:
    """Appends the spans of the call, its own first."""
    trace_id, span_id = bytes.fromhex(trace.trace_id), bytes.fromhex(trace.span_id)
    fixed = _server_template(
        trace.method, trace.model, trace.version, trace.arm, trace.revision, trace.reason, trace.code
    )
    state = _state_field(trace.state) if trace.state else b""
    spans.append(
        b"".join(
            (
                _IDS.pack(b"\x0a\x10", trace_id, b"\x12\x08", span_id),
                state,
                _PARENT + bytes.fromhex(trace.parent_id) + _child(trace.method) if trace.parent_id else _ROOT,
                fixed,
                _TIMES.pack(_START, trace.received_ns & _WHOLE, _END, (trace.received_ns + trace.total_ns) & _WHOLE),
                _number("gateway.rows", trace.rows),
                _attribute(9, "gateway.request_id", trace.request_id),
                _ERROR if trace.code in _SERVER_ERRORS else b"",
            )
        )
    )
    if trace.queued_ns:
        spans.append(_inner(trace_id, span_id, 1, state, _QUEUE, trace.queued_ns, trace.queue_ns))
    if trace.infer_ns:
        start_ns = trace.queued_ns + trace.queue_ns + trace.input_ns
        run = _inner(trace_id, span_id, 2, state, _RUN, start_ns, trace.infer_ns)
        batch = _number("gateway.batch.calls", trace.batch_calls) + _number("gateway.batch.rows", trace.batch_rows)
        spans.append(b"".join((run, batch, *(_link(mate, span) for mate, span in trace.links))))


def _inner(
    trace_id: bytes, call_id: bytes, place: int, state: bytes, fixed: bytes, start_ns: int, length_ns: int
) -> bytes:
    """Returns a span within the call's, whose links and numbers may follow."""
    own = (int.from_bytes(call_id, "big") + place) & _WHOLE or place
    return b"".join(
        (
            _IDS.pack(b"\x0a\x10", trace_id, b"\x12\x08", own.to_bytes(8, "big")),
            state,
            _PARENT,
            call_id,
            fixed,
            _TIMES.pack(_START, start_ns & _WHOLE, _END, (start_ns + length_ns) & _WHOLE),
        )
    )


def _link(trace_id: str, span_id: str) -> bytes:
    ids = b"\x0a\x10", bytes.fromhex(trace_id), b"\x12\x08", bytes.fromhex(span_id)
    return _LINK.pack(_LINK_TAG, _LINK_BYTES, *ids, _LINK_FLAGS, _SAMPLED | _KNOWS_WHERE | _PARENT_IS_REMOTE)


@lru_cache(_KEPT_TEMPLATES)
def _server_template(method: str, model: str, version: str, arm: str, revision: int, reason: str, code: int) -> bytes:
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
    return _named(method, _INTERNAL if inside else _SERVER) + b"".join(
        _attribute(9, key, value) for key, value in own.items()
    )


def _child(method: str) -> bytes:
    return _ROOT if method.startswith(STEP) else _REMOTE_CHILD


@lru_cache(_KEPT_TEMPLATES)
def _number(key: str, value: int) -> bytes:
    return _attribute(9, key, value)


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


_ROOT: Final = _flags(_SAMPLED | _KNOWS_WHERE)
_REMOTE_CHILD: Final = _flags(_SAMPLED | _KNOWS_WHERE | _PARENT_IS_REMOTE)
_QUEUE: Final = _named("queue", _INTERNAL) + _ROOT
_RUN: Final = _named("run", _INTERNAL) + _ROOT
