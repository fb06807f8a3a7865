"""Spans by the wire, held to what OpenTelemetry's own encoder makes of the same calls."""

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway.telemetry.finished_trace import STEP, FinishedTrace
from gateway.telemetry.span_encoding import encode_request

SAMPLED = 1
RESOURCE: dict[str, str | int] = {"service.name": "s", "k": "w" * 300}
IDS = st.integers(1, (1 << 64) - 1).map(lambda number: f"{number:016x}")
TRACE_IDS = st.integers(1, (1 << 128) - 1).map(lambda number: f"{number:032x}")
TIMES = st.integers(0, 1 << 62)
LENGTHS = st.integers(0, 1 << 40)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
TRACES = st.builds(
    FinishedTrace,
    trace_id=TRACE_IDS,
    span_id=IDS,
    parent_id=st.just("") | IDS,
    state=st.sampled_from(["", "vendor=1", "a=1,b@c=x y , d=2"]),
    received_ns=TIMES,
    queued_ns=st.just(0) | TIMES,
    queue_ns=LENGTHS,
    input_ns=LENGTHS,
    infer_ns=st.just(0) | LENGTHS,
    total_ns=LENGTHS,
    method=st.sampled_from(["inference.GRPCInferenceService/ModelInfer", "REST inference", "a.B", "step a.b"]) | TEXTS,
    model=TEXTS,
    version=TEXTS,
    arm=TEXTS,
    revision=st.integers(0, 1 << 53),
    reason=TEXTS,
    request_id=TEXTS,
    code=st.integers(0, 16),
    rows=st.integers(0, 1 << 40),
    batch_calls=st.integers(0, 5000),
    batch_rows=st.integers(0, 1 << 40),
    links=st.lists(st.tuples(TRACE_IDS, IDS), max_size=3),
)  # fmt: skip
LAST = FinishedTrace(
    "f" * 32, "f" * 16, "", "", 1, 1, 1, 1, 1, 1, "a.B/c", "m", "1", "", 0, "", "r", 13, 1, 1, 1, [("1" * 32, "2" * 16)]
)


def by_the_sdk(trace: FinishedTrace, resource: Resource) -> Iterator[ReadableSpan]:
    """The spans of a call as the SDK's values."""
    number, flags = int(trace.trace_id, 16), TraceFlags(TraceFlags.SAMPLED)
    state = TraceState.from_header([trace.state])
    own = SpanContext(number, int(trace.span_id, 16), False, flags, state)
    step = trace.method.startswith(STEP)
    parent = SpanContext(number, int(trace.parent_id, 16), not step, flags, state) if trace.parent_id else None
    scope = InstrumentationScope("gateway", "1")
    told: dict[str, str | int] = {
        "gateway.model": trace.model,
        "gateway.version": trace.version,
        "gateway.arm": trace.arm,
        "gateway.revision": trace.revision,
        "gateway.reason": trace.reason,
        "rpc.grpc.status_code": trace.code,
    }
    service, _, method = trace.method.partition("/")
    if "." in service and not step:
        told |= {"rpc.system": "grpc", "rpc.service": service, **({"rpc.method": method} if method else {})}
    told |= {"gateway.rows": trace.rows, "gateway.request_id": trace.request_id}
    failed = trace.code in (2, 4, 12, 13, 14, 15)
    yield ReadableSpan(
        trace.method, own, parent, resource, told, instrumentation_scope=scope,
        kind=SpanKind.INTERNAL if step else SpanKind.SERVER,
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        start_time=trace.received_ns, end_time=trace.received_ns + trace.total_ns,
    )  # fmt: skip
    for name, place, start, length in (
        ("queue", 1, trace.queued_ns, trace.queue_ns),
        ("run", 2, trace.queued_ns + trace.queue_ns + trace.input_ns, trace.infer_ns),
    ):
        ran = name == "run"
        if not (trace.infer_ns if ran else trace.queued_ns):
            continue
        context = SpanContext(number, (own.span_id + place) % (1 << 64) or place, False, flags, state)
        links = [Link(SpanContext(int(mate, 16), int(span, 16), True, flags)) for mate, span in trace.links if ran]
        batch = {"gateway.batch.calls": trace.batch_calls, "gateway.batch.rows": trace.batch_rows}
        yield ReadableSpan(
            name, context, own, resource, batch if ran else {}, links=links, kind=SpanKind.INTERNAL,
            start_time=start, end_time=start + length, instrumentation_scope=scope, status=Status(StatusCode.UNSET),
        )  # fmt: skip


def decoded(*traces: FinishedTrace) -> tuple[ExportTraceServiceRequest, int]:
    body, spans = encode_request(traces, RESOURCE, "gateway", "1")
    return ExportTraceServiceRequest.FromString(body), spans


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    [of_resource] = request.resource_spans
    [of_scope] = of_resource.scope_spans
    return list(of_scope.spans)


def without_flags(spans: list[Span]) -> list[Span]:
    """The spans without what the SDK leaves out of the flags: that they are sampled."""
    for span in spans:
        assert span.flags & SAMPLED or span.flags & 0x100
        span.flags &= ~SAMPLED
        span.ClearField("status") if not span.status.code else None
        for link in span.links:
            link.flags &= ~SAMPLED
    return spans


@given(st.lists(TRACES, min_size=1, max_size=3))
@example([LAST])
@example([LAST, LAST])
def test_it_says_what_the_sdk_says(traces: list[FinishedTrace]) -> None:
    request, count = decoded(*traces)
    resource = Resource(RESOURCE)
    expected = encode_spans([span for trace in traces for span in by_the_sdk(trace, resource)])
    assert count == len(spans_of(request))
    assert without_flags(spans_of(request)) == without_flags(spans_of(expected))
    assert request.resource_spans[0].resource == expected.resource_spans[0].resource
    assert request.resource_spans[0].scope_spans[0].scope == expected.resource_spans[0].scope_spans[0].scope


def test_no_traces_are_no_spans() -> None:
    request, count = decoded()
    assert (count, spans_of(request)) == (0, [])


@pytest.mark.parametrize("state", ["no member", "A=1", "a=1,,b=2", "a=é", "a=" + "x" * 257, ",".join(["a=1"] * 33)])
def test_what_is_no_tracestate_is_not_passed_on(state: str) -> None:
    trace = FinishedTrace(**{**{name: getattr(LAST, name) for name in LAST.__struct_fields__}, "state": state})
    assert {span.trace_state for span in spans_of(decoded(trace)[0])} == {""}
