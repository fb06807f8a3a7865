"""A gateway whose store is away or slow when it starts, and that has no rules on disk: nobody is served by a guess."""

import asyncio
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.pb import inference_pb2 as pb
from gateway.routing.document.document import RouteDocument, parse
from loadtests.samples import request
from tests.e2e.calls import stub
from tests.e2e.conftest import Demo, connect
from tests.e2e.product import Product, until
from tests.routing.live import BY, control_of, store_of
from tests.valkey import Valkey

STORE_DELAY_S = 0.4
Answers = list[tuple[grpc.StatusCode, str, str]]


def pinned() -> RouteDocument:
    """Version 1 of digits, of which the demo has a newer one."""
    spec = {"arms": {"old": {"version": "1"}}, "strategy": {"pinned": {"arm": "old"}}}
    return parse({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": "digits"}, "spec": spec})


@pytest.fixture
async def store(valkey: Valkey) -> Valkey:
    """A store in which digits is pinned to version 1."""
    async with store_of(valkey.url) as rules:
        await control_of(rules).apply(pinned(), change=BY)
    return valkey


@contextmanager
def launched(directory: Path, demo: Demo, *arguments: str) -> Iterator[Product]:
    """A gateway that was started and not waited for, but for its ports to be known."""
    product = Product(directory, demo.repository, *arguments)
    try:
        product.launch()
        until((product.data / "run" / "state.json").exists, 60, "the state file")
        yield product
    finally:
        product.kill()


def ask(channel: grpc.Channel, demo: Demo) -> tuple[grpc.StatusCode, str, str]:
    """Code, text and version of one inference call."""
    message = request("digits", demo.rows("digits")[0], "e2e")
    call = stub(channel).ModelInfer.future(message, timeout=20)
    version = call.result().model_version if call.code() is grpc.StatusCode.OK else ""
    return call.code(), call.details() or "", version


def readyz(product: Product) -> int:
    try:
        product.page("/readyz")
    except urllib.error.HTTPError as error:
        return error.code
    return 200


@contextmanager
def connected(product: Product) -> Iterator[grpc.Channel]:
    """A connection to a gateway that may be starting still."""
    with connect(product) as channel:
        grpc.channel_ready_future(channel).result(90)
        yield channel


def health(channel: grpc.Channel, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    status: int = health_pb2_grpc.HealthStub(channel).Check(request, timeout=20).status
    return status


@pytest.mark.parametrize("transport", ["ngh2", pytest.param("grpcio", marks=pytest.mark.long)])
async def test_a_host_that_knows_no_rules_is_not_ready_until_it_has_read_them(
    store: Valkey, demo: Demo, tmp_path: Path, transport: str
) -> None:
    store.kill()
    with launched(tmp_path / "product", demo, "--redis-url", store.url, "--transport", transport) as product:
        until(lambda: product.events().count("not ready: no routing rules") == 2, 60, "two workers that are not ready")
        with connected(product) as channel:
            code, text, _ = ask(channel, demo)
            assert (code, "no routing rules could be read yet" in text) == (grpc.StatusCode.UNAVAILABLE, True)
            assert not stub(channel).ServerReady(pb.ServerReadyRequest(), timeout=20).ready
            assert stub(channel).ServerLive(pb.ServerLiveRequest(), timeout=20).live
            assert not stub(channel).ModelReady(pb.ModelReadyRequest(name="digits"), timeout=20).ready
            for service in ("", "inference.GRPCInferenceService", "model/digits"):
                assert health(channel, service) == health_pb2.HealthCheckResponse.NOT_SERVING
            assert readyz(product) == 503
            assert "not reachable: connection refused" in product.events()
            assert product.cli("models").exit_code == 0  # operators can look
            store.start()
            product.ready()
            assert {ask(channel, demo)[2] for _ in range(20)} == {"1"}
            assert health(channel, "model/digits") == health_pb2.HealthCheckResponse.SERVING
        assert readyz(product) == 200
        product.stop()
        store.kill()
        product.start()  # by what is on disk now
        with connect(product) as channel:
            assert {ask(channel, demo)[2] for _ in range(20)} == {"1"}


@pytest.mark.parametrize("transport", ["ngh2"])  # the store is no transport's business
async def test_a_slow_store_costs_time_and_no_wrong_answer(
    store: Valkey, demo: Demo, tmp_path: Path, transport: str
) -> None:
    url = f"unix://{tmp_path / 'slow.sock'}"
    with (
        slow(store.socket_path, tmp_path / "slow.sock"),
        launched(tmp_path / "product", demo, "--redis-url", url, "--transport", transport) as product,
    ):
        answers: Answers = []
        with connected(product) as channel:
            until(lambda: answers.append(ask(channel, demo)) or answers[-1][2], 60, "an answer")  # type: ignore[func-returns-value]
            answers += [ask(channel, demo) for _ in range(20)]
        assert {version for _, _, version in answers} <= {"", "1"}
        assert {code for code, _, version in answers if not version} <= {grpc.StatusCode.UNAVAILABLE}
        product.ready()


async def test_an_operator_may_start_without_rules(store: Valkey, demo: Demo, tmp_path: Path) -> None:
    store.kill()
    options = ("--redis-url", store.url, "--start-without-rules")
    with launched(tmp_path / "product", demo, *options) as product:
        product.ready()
        with connect(product) as channel:
            newest = ask(channel, demo)[2]
            assert newest != "1"
            store.start()
            until(lambda: ask(channel, demo)[2] == "1", 20, "the rules of the store")
        assert "--start-without-rules: the newest versions answer" in product.events()


@contextmanager
def slow(target: Path, path: Path) -> Iterator[None]:
    """A way to the server on which each answer takes `STORE_DELAY_S` longer."""
    started, running = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
        try:
            while data := await reader.read(1 << 16):
                await asyncio.sleep(delay_s)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(target)
        try:
            await asyncio.gather(carry(reader, to_server, 0.0), carry(from_server, writer, STORE_DELAY_S))
        except asyncio.CancelledError:
            pass  # the end of the test

    async def run() -> None:
        stopped = asyncio.Event()
        running.append((asyncio.get_running_loop(), stopped))
        async with await asyncio.start_unix_server(serve, path):
            started.set()
            await stopped.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(10)
        yield
    finally:
        for loop, stopped in running:
            loop.call_soon_threadsafe(stopped.set)
        thread.join()
