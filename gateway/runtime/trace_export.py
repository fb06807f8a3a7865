"""Traces on their way out: fetched from the workers, made into spans, sent by OTLP over HTTP.

It runs in the control process, so that neither the making of spans nor a collector that is away costs a request
anything. While one export is under way nothing more is fetched: what the workers have then waits there, bounded.

Source: OpenTelemetry, semantic conventions for RPC servers; OTLP 1.x over HTTP.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

import gateway
from gateway.errors import GatewayError
from gateway.runtime.peers import Payload
from gateway.runtime.sections import TraceOptions
from gateway.telemetry.finished_trace import MOST_WAITING, FinishedTrace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

PATH: Final = "/v1/traces"
POLL_SECONDS: Final = 1.0
_TRACES_AT_ONCE: Final = 512
_ANSWER_LIMIT_S: Final = 3.0
_LAST_LIMIT_S: Final = 1.5
_EXPORTED, _FAILED = "exported", "failed"
# As the conventions have it, of gRPC's codes only these are the server's errors.
_SERVER_ERRORS: Final = frozenset({2, 4, 12, 13, 14, 15})
_log = logging.getLogger(__name__)
Fetch = Callable[[], Awaitable[Mapping[int, Payload | GatewayError]]]


class TraceExport:
    """Exports what the workers have sampled; `counts` says what became of the spans.

    `fetch` asks each worker for its traces. Nothing is delivered twice; what is lost on the way is not made again.
    """

    def __init__(
        self,
        exporter: "SpanExporter",
        fetch: Fetch,
        *,
        service: str = "model-serving-gateway",
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.counts: Counter[str] = Counter({_EXPORTED: 0, _FAILED: 0})
        self._exporter = exporter
        self._fetch = fetch
        self._spans = SpanMaker(service)
        self._waiting: list[FinishedTrace] = []
        self._most_waiting = most_waiting
        self._trouble = False

    async def run(self) -> None:
        """Exports until it is cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.step()

    async def step(self) -> None:
        """Fetches once, and exports what there is."""
        for answer in (await self._fetch()).values():
            if not isinstance(answer, GatewayError):
                self.take(answer)
        waiting, self._waiting = self._waiting, []
        if waiting:
            await self._export(waiting)

    def take(self, answer: Payload) -> None:
        """Takes the traces of a worker, to be exported with the next step. A worker of another release says nothing."""
        try:
            traces = msgspec.convert(answer.get("traces", []), list[FinishedTrace])
        except msgspec.ValidationError:
            _log.warning("traces of a worker cannot be read: is it another release?")
            return
        self._waiting += traces[: max(0, self._most_waiting - len(self._waiting))]

    async def close(self) -> None:
        """Exports what workers told as they ended, if that can be done at once."""
        try:
            async with asyncio.timeout(_LAST_LIMIT_S):
                await self.step()
        except TimeoutError:
            pass
        self._exporter.shutdown()

    async def _export(self, traces: Sequence[FinishedTrace]) -> None:
        for first in range(0, len(traces), _TRACES_AT_ONCE):
            part = traces[first : first + _TRACES_AT_ONCE]
            spans, taken = await asyncio.to_thread(self._send, part)
            self.counts[_EXPORTED if taken else _FAILED] += spans
            self._tell(failed=not taken)

    def _send(self, traces: Sequence[FinishedTrace]) -> tuple[int, bool]:
        """Returns how many spans the traces have, and whether the collector took them. On a thread."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans = [span for trace in traces for span in self._spans.of(trace)]
        return len(spans), self._exporter.export(spans) is SpanExportResult.SUCCESS

    def _tell(self, *, failed: bool) -> None:
        """Logs that the collector takes no spans, and that it does again, once each."""
        if failed and not self._trouble:
            _log.warning("the collector does not take traces: they are lost")
        elif self._trouble and not failed:
            _log.info("the collector takes traces again")
        self._trouble = failed


class SpanMaker:
    """Makes the spans of a call: the call itself, its wait for a run, and the run."""

    def __init__(self, service: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import TraceState

        own = {"service.version": gateway.__version__, "service.instance.id": socket.gethostname()}
        named = Resource.create(own)  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are heeded
        unnamed = str(named.attributes.get("service.name", "")).startswith("unknown_service")
        resource = named.merge(Resource({"service.name": service})) if unnamed else named
        # The encoder asks for the hash of each span's resource, which Resource makes anew from JSON each time.
        told = type("ToldResource", (Resource,), {"__hash__": object.__hash__})
        self._resource: Resource = told(resource.attributes, resource.schema_url)
        self._no_state = TraceState()
        self._scope = InstrumentationScope("gateway", gateway.__version__)

    def of(self, trace: FinishedTrace) -> Iterator["ReadableSpan"]:
        """Yields the spans, the call's own first."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

        number, flags = int(trace.trace_id, 16), TraceFlags(TraceFlags.SAMPLED)
        state = TraceState.from_header([trace.state]) if trace.state else self._no_state
        own = SpanContext(number, int(trace.span_id, 16), False, flags, state)
        parent = SpanContext(number, int(trace.parent_id, 16), True, flags, state) if trace.parent_id else None
        failed = trace.code in _SERVER_ERRORS
        yield ReadableSpan(
            trace.method,
            own,
            parent,
            self._resource,
            _attributes(trace),
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=trace.received_ns,
            end_time=trace.received_ns + trace.total_ns,
            instrumentation_scope=self._scope,
        )

        def inner(name: str, place: int, start_ns: int, length_ns: int, run: bool) -> ReadableSpan:
            # A span inside has an id that follows from the call's: whoever made it anew would make the same one.
            context = SpanContext(number, (int(trace.span_id, 16) + place) % (1 << 64) or place, False, flags, state)
            links = [Link(SpanContext(int(mate, 16), int(span, 16), True, flags)) for mate, span in trace.links if run]
            attributes = {"gateway.batch.calls": trace.batch_calls, "gateway.batch.rows": trace.batch_rows}
            return ReadableSpan(
                name,
                context,
                own,
                self._resource,
                attributes if run else {},
                links=links,
                kind=SpanKind.INTERNAL,
                start_time=start_ns,
                end_time=start_ns + length_ns,
                instrumentation_scope=self._scope,
            )

        if trace.queued_ns:
            yield inner("queue", 1, trace.queued_ns, trace.queue_ns, False)
        if trace.infer_ns:
            yield inner("run", 2, trace.queued_ns + trace.queue_ns + trace.input_ns, trace.infer_ns, True)


def make_trace_export(options: TraceOptions, fetch: Fetch) -> TraceExport:
    """Returns the export that the options ask for. It imports much, so it belongs on a thread."""
    return TraceExport(make_exporter(options), fetch)


def make_exporter(options: TraceOptions) -> "SpanExporter":
    """Returns what sends spans to the collector, by the headers and TLS of OTEL_EXPORTER_OTLP_* in the environment."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # It says the same of every try; one word at the first one is enough.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    url = options.otlp_endpoint.rstrip("/")
    return OTLPSpanExporter(endpoint=url if url.endswith(PATH) else url + PATH, timeout=_ANSWER_LIMIT_S)


def _attributes(trace: FinishedTrace) -> dict[str, str | int]:
    own: dict[str, str | int] = {
        "gateway.model": trace.model,
        "gateway.version": trace.version,
        "gateway.arm": trace.arm,
        "gateway.revision": trace.revision,
        "gateway.reason": trace.reason,
        "gateway.request_id": trace.request_id,
        "gateway.rows": trace.rows,
        "rpc.grpc.status_code": trace.code,
    }
    service, _, method = trace.method.partition("/")
    if "." in service:
        own |= {"rpc.system": "grpc", "rpc.service": service, **({"rpc.method": method} if method else {})}
    return own
