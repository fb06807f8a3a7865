"""A collector of traces in memory: an HTTP server that takes OTLP as it is specified, and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class OtlpCollector(HTTPServer):
    """Keeps what it is sent; answers with `status`. `came` is set by each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []
        self.resources: list[Resource] = []
        self.paths: list[str] = []
        self.status = 200
        self.came = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def of_trace(self, trace_id: str) -> dict[str, Span]:
        """The spans of that trace by name."""
        return {span.name: span for span in self.spans if span.trace_id.hex() == trace_id}


class _Handler(BaseHTTPRequestHandler):
    server: OtlpCollector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/x-protobuf"
        if self.server.status == 200:
            request = ExportTraceServiceRequest.FromString(body)
            for of_resource in request.resource_spans:
                self.server.resources.append(of_resource.resource)
                self.server.spans += [span for of_scope in of_resource.scope_spans for span in of_scope.spans]
        self.server.paths.append(self.path)
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()
        self.server.came.set()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[OtlpCollector]:
    """A collector that listens."""
    with OtlpCollector() as collector:
        thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


def value(span: Span, name: str) -> str | int | None:
    """The attribute of that name."""
    for attribute in span.attributes:
        if attribute.key == name:
            told = attribute.value
            return told.string_value if told.HasField("string_value") else told.int_value
    return None
