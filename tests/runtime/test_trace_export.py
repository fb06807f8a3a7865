"""The spans that a collector gets, over real OTLP."""

from collections.abc import Iterator, Mapping

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.errors import GatewayError, InvalidArgument, Unavailable
from gateway.runtime.config_parser import parse
from gateway.runtime.otlp_settings import read_otlp_settings
from gateway.runtime.peers import Payload
from gateway.runtime.trace_export import TraceExport
from gateway.runtime.trace_sender import TraceSender
from gateway.telemetry.finished_trace import MOST_WAITING, FinishedTrace
from tests.telemetry.otlp_collector import OtlpCollector, collecting, value

TRACE, PARENT, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
MATE = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b8")
SERVER, QUEUE, RUN = "inference.GRPCInferenceService/ModelInfer", "queue", "run"
CALL = FinishedTrace(
    trace_id=TRACE, span_id=SPAN, parent_id=PARENT, state="vendor=1", received_ns=1_000_000, queued_ns=1_200_000,
    queue_ns=300_000, input_ns=50_000, infer_ns=400_000, total_ns=1_500_000, method=SERVER, model="m",
    version="2", arm="a", revision=7, reason="SPLIT", request_id="r", code=0, rows=3, batch_calls=2, batch_rows=5,
    links=[MATE],
)  # fmt: skip


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with collecting() as made:
        yield made


def export(collector: OtlpCollector, *answers: object, most_waiting: int = MOST_WAITING) -> TraceExport:
    """An export of what workers answer."""

    async def fetch() -> Mapping[int, Payload | GatewayError]:
        return {
            slot: answer if isinstance(answer, GatewayError) else {"traces": answer}
            for slot, answer in enumerate(answers)
        }

    settings = read_otlp_settings({})
    sender = TraceSender(collector.url, settings, limit_s=3.0)
    return TraceExport(sender, fetch, settings.resource, most_waiting=most_waiting)


def told(*traces: FinishedTrace) -> object:
    return msgspec.json.decode(msgspec.json.encode(traces))


async def test_a_call_is_a_span_with_its_wait_and_its_run_inside(collector: OtlpCollector) -> None:
    traces = export(collector, told(CALL), Unavailable("gone"))
    await traces.step()
    assert collector.paths == ["/v1/traces"]
    assert traces.counts == {"exported": 3, "failed": 0}
    spans = collector.of_trace(TRACE)
    assert set(spans) == {SERVER, QUEUE, RUN}
    server, queue, run = spans[SERVER], spans[QUEUE], spans[RUN]
    assert (server.span_id.hex(), server.parent_span_id.hex(), server.trace_state) == (SPAN, PARENT, "vendor=1")
    assert (server.kind, server.status.code) == (Span.SPAN_KIND_SERVER, Status.STATUS_CODE_UNSET)
    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (1_000_000, 2_500_000)
    assert {one.parent_span_id.hex() for one in (queue, run)} == {SPAN}
    assert len({one.span_id for one in spans.values()}) == 3
    assert (queue.start_time_unix_nano, queue.end_time_unix_nano) == (1_200_000, 1_500_000)
    assert (run.start_time_unix_nano, run.end_time_unix_nano) == (1_550_000, 1_950_000)
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in run.links] == [MATE]
    assert not queue.links
    assert (value(run, "gateway.batch.calls"), value(run, "gateway.batch.rows")) == (2, 5)
    shown = {key: value(server, key) for key in ("rpc.method", "gateway.model", "gateway.version", "gateway.arm")}
    assert shown == {"rpc.method": "ModelInfer", "gateway.model": "m", "gateway.version": "2", "gateway.arm": "a"}
    assert value(server, "gateway.request_id") == "r"
    names = {one.key: one.value.string_value for one in collector.resources[0].attributes}
    assert names["service.name"] == "model-serving-gateway"
    await traces.close()


async def test_a_call_that_never_ran_has_no_run_and_only_the_servers_faults_are_errors(
    collector: OtlpCollector,
) -> None:
    refused = msgspec.structs.replace(CALL, code=5, queued_ns=0, infer_ns=0, parent_id="", method="REST inference")
    broken = msgspec.structs.replace(CALL, trace_id=MATE[0], code=13, infer_ns=0)
    traces = export(collector, told(refused, broken))
    await traces.step()
    await traces.close()
    (server,) = collector.of_trace(TRACE).values()
    assert (server.name, server.parent_span_id) == ("REST inference", b"")
    assert server.status.code == Status.STATUS_CODE_UNSET
    spans = collector.of_trace(MATE[0])
    assert set(spans) == {SERVER, QUEUE}
    assert spans[SERVER].status.code == Status.STATUS_CODE_ERROR


async def test_spans_that_a_collector_refuses_are_counted_and_told_once(
    collector: OtlpCollector, caplog: pytest.LogCaptureFixture
) -> None:
    traces = export(collector, told(CALL))
    collector.status = 400
    with caplog.at_level("INFO", "gateway"):
        await traces.step()
        await traces.step()
        assert traces.counts == {"exported": 0, "failed": 6}
        collector.status = 200
        await traces.step()
    assert [record.getMessage() for record in caplog.records] == [
        "the collector does not take traces: they are lost",
        "the collector takes traces again",
    ]
    assert traces.counts == {"exported": 3, "failed": 6}
    await traces.close()


async def test_what_a_worker_tells_last_is_exported_at_the_end(collector: OtlpCollector) -> None:
    traces = export(collector)
    traces.take({"traces": told(CALL)})
    traces.take({"traces": [["of", "another", "release"]]})
    traces.take({"slot": 0})
    await traces.close()
    assert set(collector.of_trace(TRACE)) == {SERVER, QUEUE, RUN}


async def test_what_waits_is_bounded(collector: OtlpCollector) -> None:
    traces = export(collector, most_waiting=10)
    for _ in range(3):
        traces.take({"traces": told(*[CALL] * 6)})
    await traces.step()
    assert traces.counts["exported"] == 3 * 10
    await traces.close()


def test_an_endpoint_is_an_address_of_http() -> None:
    for wrong in ("collector:4318", "ftp://x", "http://user:secret@x"):
        with pytest.raises(InvalidArgument, match="otlp-endpoint"):
            parse({"otlp-endpoint": wrong}, {}, {})
