"""The edge of the running product: health, metrics, bad input on a live connection, and a second gateway."""

import http.client
import socket
import urllib.error
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.pb import inference_pb2 as pb
from loadtests.samples import request
from tests.e2e.calls import infer, refusal, stub
from tests.e2e.conftest import Demo
from tests.e2e.product import Product, command, until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
pytestmark = pytest.mark.usefixtures("no_routes")


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "model/digits"])
def test_health_check(channels: list[grpc.Channel], service: str) -> None:
    for channel in channels:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == SERVING


def test_health_of_what_nobody_knows(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        health.Check(health_pb2.HealthCheckRequest(service="model/none"), timeout=20)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(service="model/none"), timeout=20)
    assert next(watch).status == UNKNOWN
    watch.cancel()


def test_health_watch_tells_of_a_model_that_goes_and_comes_back(channel: grpc.Channel) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service="model/breast_cancer"), timeout=60
    )
    assert next(watch).status == SERVING
    stub(channel).RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="breast_cancer"), timeout=20)
    assert next(watch).status in (NOT_SERVING, UNKNOWN)
    stub(channel).RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="breast_cancer"), timeout=30)
    while next(watch).status != SERVING:
        pass
    watch.cancel()


def test_the_pages_of_the_metrics_port(product: Product) -> None:
    assert product.page("/healthz") == "ok\n"
    assert '"ready": true' in product.page("/readyz")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        product.page("/none")


def test_a_name_that_was_pointed_at_this_host_reads_nothing(product: Product) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", product.port("metrics"), timeout=10)
    told = {}
    for path in (
        "/metrics",
        "/openapi.json",
        "/api/v1/drift",
        "/events?follow=false",
        "/",
        "/api/v1/routes",
        "/readyz",
    ):
        for host in ("evil.example", "localhost:1"):
            connection.request("GET", path, headers={"host": host})  # all of them on one connection
            answer = connection.getresponse()
            told[path, host] = answer.status, answer.read()
    connection.close()
    assert {status for (_, host), (status, _) in told.items() if host == "localhost:1"} == {200}
    assert {status for (path, host), (status, _) in told.items() if host != "localhost:1"} == {421, 200}
    # A probe is answered whatever name it has for this host, and is told no more than it asks.
    assert told["/readyz", "evil.example"] == (200, b'{\n "ready": true\n}\n')
    assert b"workers" in told["/readyz", "localhost:1"][1]


def test_metrics_are_the_sums_over_the_workers(product: Product, channels: list[grpc.Channel], demo: Demo) -> None:
    before = product.metrics()
    row = demo.rows("flight_delay")[0]
    for number, channel in enumerate(channels * 4):
        infer(channel, "flight_delay", row, version=str(number % 2 + 1))
    after = product.metrics()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    for version in ("1", "2"):
        assert grown(f'nv_inference_request_success{{model="flight_delay",version="{version}"}}') == 16
        assert grown(f'gateway_requests_total{{arm="",code="OK",model="flight_delay",version="{version}"}}') == 16
        assert grown(f'gateway_request_seconds_count{{arm="",model="flight_delay",version="{version}"}}') == 16
    assert grown('gateway_log_records_total{outcome="seen"}') == 32
    ready = [value for name, value in after.items() if name.startswith("gateway_worker_ready{")]
    assert ready == [1.0, 1.0]


def test_what_clients_write_is_no_label(product: Product, channel: grpc.Channel, demo: Demo) -> None:
    row = demo.rows("digits")[0]
    infer(channel, "digits", row)
    before = product.metrics()
    for number in range(50):
        refused = refusal(channel, request(f"nonsense-{number}", row, "x", f"{number + 1}"))
        assert refused.code is grpc.StatusCode.NOT_FOUND
        refused = refusal(channel, request("digits", row, "x", f"7000{number}"))
        assert refused.code is grpc.StatusCode.NOT_FOUND
    after = product.metrics()
    assert "nonsense" not in product.page("/metrics")
    assert {name for name in after if name not in before} <= {'gateway_refused_total{code="NOT_FOUND"}'}
    refused_before = before.get('gateway_refused_total{code="NOT_FOUND"}', 0.0)
    assert after['gateway_refused_total{code="NOT_FOUND"}'] - refused_before == 100


def _bad(row_request: pb.ModelInferRequest, what: str) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest()
    message.CopyFrom(row_request)
    match what:
        case "datatype":
            message.inputs[0].datatype = "INT32"
        case "shape":
            message.inputs[0].shape[1] = 63
        case "short data":
            message.raw_input_contents[0] = message.raw_input_contents[0][:-1]
        case "no input":
            del message.inputs[:]
            del message.raw_input_contents[:]
        case "unknown input":
            message.inputs[0].name = "picture"
        case "unknown output":
            message.outputs.add(name="heat map")
        case "both contents":
            message.inputs[0].contents.fp32_contents.extend([1.0] * 64)
        case "batch too large":
            message.inputs[0].shape[0] = 257
            message.raw_input_contents[0] = bytes(257 * 256)
    return message


@pytest.mark.parametrize(
    "what",
    [
        "datatype", "shape", "short data", "no input", "unknown input", "unknown output", "both contents",
        "batch too large",
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_the_connection_goes_on(channel: grpc.Channel, demo: Demo, what: str) -> None:
    row = demo.rows("digits")[0]
    refused = refusal(channel, _bad(request("digits", row, "bad"), what))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT, refused
    assert "Traceback" not in refused.text
    assert "/" not in refused.text
    infer(channel, "digits", row)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\xff" * 64, grpc.StatusCode.INVALID_ARGUMENT),
        (b"\x0a\x7f", grpc.StatusCode.INVALID_ARGUMENT),
        (bytes(65 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["not a message", "cut off", "too large"],
)
def test_bytes_that_are_no_request(channel: grpc.Channel, demo: Demo, message: bytes, code: grpc.StatusCode) -> None:
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, None)
    with pytest.raises(grpc.RpcError) as raised:
        call(message, timeout=20)
    assert raised.value.code() is code
    infer(channel, "digits", demo.rows("digits")[0])


def test_bad_input_killed_nobody(product: Product) -> None:
    assert [(child["role"], child["restarts"]) for child in product.state()["children"]] == [
        ("valkey", 0), ("compactor", 0), ("control", 0), ("worker", 0), ("worker", 0),
    ]  # fmt: skip
    assert "Traceback" not in product.events()


def test_reflection_is_off(channel: grpc.Channel) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as raised:
        next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]), timeout=20))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_second_gateway_on_the_same_data_is_refused(product: Product) -> None:
    done = command(*product.serve_arguments())
    assert done.returncode == 1
    assert f"is in use by a running gateway (process {product.state()['pid']})" in done.stderr
    assert product.page("/healthz") == "ok\n"


@pytest.mark.parametrize("option", ["grpc-port", "metrics-port", "http-port"])
def test_a_port_in_use_is_refused(product: Product, tmp_path: Path, option: str) -> None:
    words = ["serve", "--model-repository", str(product.repository), "--data-dir", str(tmp_path / "data")]
    ports = {
        "grpc-port": "0",
        "metrics-port": "0",
        "http-port": "0",
        option: str(product.port(option.removesuffix("-port"))),
    }
    done = command(*words, *(word for name, port in ports.items() for word in (f"--{name}", port)))
    assert done.returncode == 1
    assert f"another process listens on 127.0.0.1:{ports[option]}" in done.stderr
    assert f"--{option}" in done.stderr


def test_a_client_that_only_connects_costs_nothing(product: Product, channel: grpc.Channel, demo: Demo) -> None:
    """Not HTTP/2 at all: closed, and nobody else is touched."""
    with socket.create_connection(("127.0.0.1", product.port("grpc")), timeout=20) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: _closed(raw), 20, "the server hangs up")
    infer(channel, "digits", demo.rows("digits")[0])


def _closed(raw: socket.socket) -> bool:
    try:
        return raw.recv(4096) == b""
    except ConnectionResetError:
        return True
