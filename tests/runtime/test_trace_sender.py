"""The way of spans to a collector: what is tried again, what is not, and what OpenTelemetry's variables say of it."""

import gzip
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from gateway.errors import InvalidArgument
from gateway.runtime.config_parser import load
from gateway.runtime.otlp_settings import read_otlp_settings
from gateway.runtime.trace_sender import TraceSender

BODY = b"spans" * 100


class Collector(ThreadingHTTPServer):
    """Notes what it is asked; answers with `statuses`, one each, then 200; then ends the connection, if `hangs_up`."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.callers: list[int] = []
        self.statuses: list[tuple[int, str]] = []
        self.hangs_up = False
        self.ended = threading.Event()
        self.scheme = "https" if context else "http"
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        self.server.callers.append(self.client_address[1])
        status, wait = self.server.statuses.pop(0) if self.server.statuses else (200, "")
        if not status:  # it took it, and is gone before it says so
            self.close_connection = True
            return
        self.send_response(status)
        if wait:
            self.send_header("retry-after", wait)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
        self.close_connection = self.server.hangs_up

    def finish(self) -> None:
        super().finish()
        self.connection.close()
        self.server.ended.set()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def collecting(context: ssl.SSLContext | None = None) -> Iterator[Collector]:
    with Collector(context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def sending(url: str, environment: dict[str, str] | None = None, *, limit_s: float = 3.0) -> Iterator[TraceSender]:
    with closing(TraceSender(url, read_otlp_settings(environment or {}), limit_s=limit_s)) as sender:
        yield sender


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def test_requests_go_one_after_another_over_one_connection(collector: Collector) -> None:
    with sending(collector.url + "/") as sender:
        assert [sender.send(BODY) for _ in range(3)] == [True] * 3
    [(path, headers, body), *_] = collector.asked
    assert (path, body) == ("/v1/traces", BODY)
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["user-agent"].startswith("model-serving-gateway/")
    assert len(set(collector.callers)) == 1


def test_a_path_of_ones_own_is_kept(collector: Collector) -> None:
    with sending(collector.url + "/otlp/v1/traces") as sender:
        assert sender.send(BODY)
    assert collector.asked[0][0] == "/otlp/v1/traces"


def test_a_connection_that_has_ended_is_made_anew_and_nothing_comes_twice(collector: Collector) -> None:
    collector.hangs_up = True
    with sending(collector.url) as sender:
        assert sender.send(b"1")
        assert collector.ended.wait(5)
        assert sender.send(b"2")
    assert [body for _, _, body in collector.asked] == [b"1", b"2"]
    assert len(set(collector.callers)) == 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_who_refuses_for_the_moment_is_asked_again_when_it_says(collector: Collector, status: int) -> None:
    collector.statuses = [(status, "0"), (status, "0.01")]
    with sending(collector.url) as sender:
        assert sender.send(BODY)
    assert len(collector.asked) == 3


@pytest.mark.parametrize("status", [0, 301, 400, 401, 404, 413, 500])
def test_what_is_refused_or_may_have_been_taken_is_not_sent_again(collector: Collector, status: int) -> None:
    collector.statuses = [(status, "")]
    with sending(collector.url) as sender:
        assert not sender.send(BODY)
        assert sender.send(BODY)
    assert len(collector.asked) == 2


def test_a_wait_that_is_longer_than_the_time_is_not_waited_for(collector: Collector) -> None:
    collector.statuses = [(503, "60")]
    with sending(collector.url) as sender:
        assert not sender.send(BODY)


def test_nobody_waits_for_another_try_who_is_hurried(collector: Collector) -> None:
    collector.statuses = [(503, "2")] * 2
    with sending(collector.url) as sender:
        threading.Timer(0.05, sender.hurry, [1.0]).start()
        assert not sender.send(BODY)
        assert not sender.send(BODY)
    assert len(collector.asked) == 2


def test_a_collector_that_is_not_there_takes_nothing() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with sending(f"http://127.0.0.1:{port}", limit_s=0.2) as sender:
        assert not sender.send(BODY)


def test_a_collector_that_says_nothing_has_its_time(collector: Collector) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        sending(f"http://127.0.0.1:{silent.getsockname()[1]}", limit_s=0.2) as sender,
    ):
        assert not sender.send(BODY)


def test_headers_and_compression_are_the_variables(collector: Collector) -> None:
    said = {"OTEL_EXPORTER_OTLP_HEADERS": "Api-Key=a%20b, x=1,nonsense", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    with sending(collector.url, said) as sender:
        assert sender.send(BODY)
    said |= {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "y=2", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "deflate"}
    with sending(collector.url, said) as sender:
        assert sender.send(BODY)
    (_, first, zipped), (_, second, deflated) = collector.asked
    assert (first["api-key"], first["x"], first["content-encoding"]) == ("a b", "1", "gzip")
    assert gzip.decompress(zipped) == BODY
    assert (second["y"], second.get("x"), second["content-encoding"]) == ("2", None, "deflate")
    assert zlib.decompress(deflated) == BODY


def test_tls_is_by_the_certificates_that_the_variables_name(tmp_path: Path) -> None:
    authority, strangers = trustme.CA(), trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    known, own, key = (tmp_path / name for name in ("ca.pem", "own.pem", "own.key"))
    authority.cert_pem.write_to_path(known)
    issued = authority.issue_cert("client@example.org")
    own.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    prefix = "OTEL_EXPORTER_OTLP_"
    said = {
        f"{prefix}CERTIFICATE": str(known),
        f"{prefix}CLIENT_CERTIFICATE": str(own),
        f"{prefix}CLIENT_KEY": str(key),
    }
    with collecting(server) as collector:
        with sending(collector.url, said) as sender:
            assert sender.send(BODY)
        strangers.cert_pem.write_to_path(known)
        with sending(collector.url, said, limit_s=0.3) as sender:
            assert not sender.send(BODY)
        assert len(collector.asked) == 1


def test_a_proxy_that_the_environment_names_is_asked_for_the_whole_address(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://who:s%40cret@localhost:{collector.server_port}")
    monkeypatch.setenv("no_proxy", "near.example")
    with sending("http://far.example:4318") as sender:
        assert sender.send(BODY)
    [(path, headers, _)] = collector.asked
    assert path == "http://far.example:4318/v1/traces"
    assert headers["host"] == "far.example:4318"
    assert headers["proxy-authorization"] == "Basic d2hvOnNAY3JldA=="
    monkeypatch.setenv("no_proxy", "localhost")
    with sending(collector.url) as sender:
        assert sender.send(BODY)
    assert collector.asked[1][0] == "/v1/traces"


def test_who_tells_is_said_by_the_variables() -> None:
    plain = read_otlp_settings({}).resource
    assert plain["service.name"] == "model-serving-gateway"
    assert set(plain) == {"service.name", "service.version", "service.instance.id"}
    said = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,deployment.environment=east%201"}
    assert read_otlp_settings(said).resource == {**plain, "service.name": "a", "deployment.environment": "east 1"}
    assert read_otlp_settings(said | {"OTEL_SERVICE_NAME": "b"}).resource["service.name"] == "b"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("COMPRESSION", "zstd"),
        ("CERTIFICATE", "/nowhere/ca.pem"),
        ("TRACES_CLIENT_CERTIFICATE", "/nowhere/own.pem"),
        ("CLIENT_KEY", "/nowhere/own.key"),
        ("HEADERS", "a=b%0d%0ac: d"),
    ],
)
def test_what_cannot_be_is_said_before_the_start(variable: str, value: str) -> None:
    name = variable.removeprefix("TRACES_")
    with pytest.raises(InvalidArgument, match=f"OTEL_EXPORTER_OTLP_{name}"):
        load({"otlp-endpoint": "http://127.0.0.1:4318"}, {f"OTEL_EXPORTER_OTLP_{variable}": value})


def test_what_is_no_certificate_is_said_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(InvalidArgument, match=r"OTEL_EXPORTER_OTLP_CERTIFICATE: .*ca\.pem.* cannot be used"):
        load({"otlp-endpoint": "https://127.0.0.1:4318"}, {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")})
