"""How a gateway ends: killed without a word, and stopped with everything open that can be."""

import http.client
import os
import resource
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.pb import control_pb2
from gateway.pb import inference_pb2 as pb
from tests import models
from tests.e2e.calls import control, stub
from tests.e2e.conftest import OWN_CONNECTION
from tests.e2e.product import Product, until
from tests.machine_load import as_loaded

GRACE_S = min(12.0, as_loaded(2.0))
FEATURES = 64
ENDED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.fixture(scope="module", params=["ngh2", "grpcio"])
def ending(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    directory = tmp_path_factory.mktemp(f"ending-{request.param}")
    repository = directory / "models"
    models.write_version(repository, "turns", "1", models.turns(features=FEATURES))
    running = Product(
        directory, repository, "--transport", request.param, "--grace-seconds", str(GRACE_S), "--poll-seconds", "0"
    )
    try:
        yield running.start()
    finally:
        running.kill()


def turning(seconds: float) -> pb.ModelInferRequest:
    """A call that runs for about so long on an idle machine."""
    message = pb.ModelInferRequest(model_name="turns")
    message.inputs.add(name="x", datatype="FP32", shape=[1, FEATURES])
    message.raw_input_contents.append(np.ones(FEATURES, np.float32).tobytes())
    message.inputs.add(name="n", datatype="INT64", shape=[1])
    message.raw_input_contents.append(np.array([round(seconds * 300_000)], np.int64).tobytes())
    return message


def is_free(port: int) -> bool:
    with socket.socket() as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            alone.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


# The processes end by their guards, whatever they serve by.
@pytest.mark.parametrize(
    "ending", ["ngh2", pytest.param("grpcio", marks=pytest.mark.long)], indirect=True, scope="module"
)
def test_a_killed_supervisor_leaves_no_process_and_no_port(ending: Product) -> None:
    pids = [child["pid"] for child in ending.state()["children"]]
    ports = (ending.port("grpc"), ending.port("metrics"))
    assert len(pids) == 5
    os.kill(pids[-1], signal.SIGSTOP)  # not even one that hangs
    os.kill(ending.state()["pid"], signal.SIGKILL)
    until(lambda: not ending.remains() and all(map(is_free, ports)), 2, "the end of every process")
    ending.kill()
    ending.start()  # with the same data: what the dead one held is no obstacle
    with grpc.insecure_channel(ending.server) as channel:
        assert stub(channel).ModelInfer(turning(0), timeout=20).model_name == "turns"


def test_a_worker_without_descriptors_serves_whom_it_has_and_recovers(ending: Product) -> None:
    if sys.platform != "linux":
        pytest.skip("the limits of another process can be set on Linux alone")
    pids = [child["pid"] for child in ending.children("worker")]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    with grpc.insecure_channel(ending.server, options=OWN_CONNECTION) as channel:
        assert stub(channel).ModelInfer(turning(0), timeout=20).model_name == "turns"
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest_descriptor(pid) + 4, limits[pid][1]))
        with ExitStack() as stack:
            for _ in range(64):
                stack.enter_context(socket.create_connection(("127.0.0.1", ending.port("grpc"))))
            before_s = cpu_s(pids)
            for _ in range(20):
                assert stub(channel).ModelInfer(turning(0), timeout=20).model_name == "turns"
            began_s = time.monotonic()
            until(lambda: time.monotonic() > began_s + 1.0, 5, "a second, in which nothing spins")
            assert cpu_s(pids) - before_s < 1.0
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits[pid])
    with grpc.insecure_channel(ending.server, options=OWN_CONNECTION) as channel:
        answer = stub(channel).ModelInfer(turning(0), timeout=20, wait_for_ready=True)
        assert answer.model_name == "turns"
    assert [child["pid"] for child in ending.children("worker")] == pids


def highest_descriptor(pid: int) -> int:
    return max(map(int, os.listdir(f"/proc/{pid}/fd")))


def cpu_s(pids: list[int]) -> float:
    """What the processes have used, user and system."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def test_a_stop_ends_in_time_whatever_is_open(ending: Product) -> None:
    with ExitStack() as stack:

        def connected() -> grpc.Channel:
            return stack.enter_context(grpc.insecure_channel(ending.server, options=OWN_CONNECTION))

        idle = connected()
        grpc.channel_ready_future(idle).result(10)
        silent = stack.enter_context(socket.create_connection(("127.0.0.1", ending.port("grpc"))))
        rest = ("127.0.0.1", ending.port("http"))
        # By REST: nothing said yet, half a head, half a body, and a connection that was used.
        for said in (
            b"",
            b"GET /v2 HT",
            b"POST /v2/models/turns/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
        ):
            stack.enter_context(socket.create_connection(rest)).sendall(said)
        kept = stack.enter_context(closing(http.client.HTTPConnection(*rest, timeout=60)))
        kept.request("GET", "/v2/health/live")
        assert kept.getresponse().read() is not None
        health = health_pb2_grpc.HealthStub(connected()).Watch(health_pb2.HealthCheckRequest())
        watch = control(connected()).Watch(control_pb2.WatchRequest())
        tail = control(connected()).TailLog(control_pb2.TailLogRequest())
        streams = [threading.Thread(target=exhaust, args=(stream,)) for stream in (health, watch, tail)]
        for thread in streams:
            thread.start()
        page = f"http://127.0.0.1:{ending.port('metrics')}/events?follow=true"
        events = stack.enter_context(urllib.request.urlopen(page, timeout=30))
        models.write_version(ending.repository, "endless", "1", models.endless())
        loading = stub(connected()).RepositoryModelLoad.future(pb.RepositoryModelLoadRequest(model_name="endless"))
        # A worker has one thread for runs here: the short one has to be the first, wherever it is.
        short = stub(connected()).ModelInfer.future(turning(1.0), timeout=60)
        until(lambda: in_flight(ending) == 1, 20, "the short call runs")
        long = stub(connected()).ModelInfer.future(turning(3600), timeout=60)
        until(lambda: in_flight(ending) == 2, 20, "both calls run")
        [valkey] = ending.children("valkey")
        os.kill(valkey["pid"], signal.SIGSTOP)

        began_s = time.monotonic()
        stopped = threading.Thread(target=ending.stop)
        stopped.start()
        assert short.result().outputs[0].name == "y"
        with grpc.insecure_channel(ending.server, options=OWN_CONNECTION) as late:
            until(lambda: code(lambda: stub(late).ModelInfer(turning(0), timeout=5)) in ENDED, 10, "new calls end")
        stopped.join()
        assert time.monotonic() - began_s <= as_loaded(GRACE_S + 5.0)
        assert loading.code() in ENDED
        assert long.code() in ENDED
        while silent.recv(4096):  # what the server said at the beginning and the end
            pass
        events.read()
        for thread in streams:
            thread.join(20)
    assert not [thread for thread in streams if thread.is_alive()]


def in_flight(product: Product) -> float:
    metrics = product.metrics().items()
    return sum(value for name, value in metrics if name.startswith("gateway_requests_in_flight{"))


def exhaust(stream: Iterator[object]) -> None:
    try:
        for _ in stream:
            pass
    except grpc.RpcError:
        pass


def code(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)  # noqa: PT017
        return error.code()
    return grpc.StatusCode.OK
