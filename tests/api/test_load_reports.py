"""What a worker reports of its load, and that clients balance by it."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import Any

import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.access.principal import ANONYMOUS, Principal
from gateway.access.quota_pass import QuotaPass
from gateway.api.exchange import Exchanges
from gateway.api.load_reports import FRESH_NS, TRAILER, Load, LoadReports, as_header, as_message, smoothed
from gateway.client.channel_target import ChannelTarget
from gateway.errors import Code, ResourceExhausted
from gateway.pb import inference_pb2 as pb
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from tests import models
from tests.api.calls import good
from tests.api.stand import Stand, standing
from tests.api.test_tf_prediction import floats, predict
from tests.models import write_version
from tests.rest.asking import ask, path_of
from tests.rpc.raw import RawClient, message, request_headers

# As cncf/xds publishes it; the fields that nobody fills here are left out.
PUBLISHED = {"cpu_utilization": 1, "mem_utilization": 2, "rps_fractional": 6, "eps": 7, "application_utilization": 9}
INFER, PREDICT = "/inference.GRPCInferenceService/ModelInfer", "/tensorflow.serving.PredictionService/Predict"
COST_NS = (200_000, 800_000)  # of CPU for each answer, by host
ROWS = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


def published() -> Any:
    """The class of OrcaLoadReport."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="xds.data.orca.v3", syntax="proto3")
    message = file.message_type.add(name="OrcaLoadReport")
    for name, number in PUBLISHED.items():
        message.field.add(name=name, number=number, type="TYPE_DOUBLE", label="LABEL_OPTIONAL")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("xds.data.orca.v3.OrcaLoadReport"))


REPORT = published()
LOADS = st.builds(Load, *[st.floats(0, 1e9)] * 4)


@dataclass
class Clocks:
    """Those of a worker, set by hand."""

    now_ns: int = 0
    cpu_ns: int = 0
    admitted: float = 0.0

    def reports(self, cpus: float = 1.0) -> LoadReports:
        return LoadReports(
            now_ns=lambda: self.now_ns, cpu_ns=lambda: self.cpu_ns, cpus=cpus, admitted=lambda: self.admitted
        )


def read(trailers: Any) -> Any:
    return REPORT.FromString(dict(trailers)[TRAILER])


@given(LOADS)
@example(Load(0.0, 0.0, 0.0, 0.0))
def test_the_message_is_the_published_one(load: Load) -> None:
    report = REPORT.FromString(as_message(load))
    assert {name: getattr(report, name) for name in PUBLISHED} == {**load._asdict(), "mem_utilization": 0.0}


@given(LOADS)
@example(Load(0.25, 0.25, 410.0, 0.0))
def test_the_header_has_both_forms_and_no_other(load: Load) -> None:
    kind, _, text = as_header(load, "json").decode().partition(" ")
    told = json.loads(text)
    assert (kind, told) == ("JSON", pytest.approx(load._asdict(), rel=1e-5))
    kind, _, text = as_header(load, "text").decode().partition(" ")
    pairs = dict(pair.split("=") for pair in text.split(", "))
    assert (kind, {name: float(value) for name, value in pairs.items()}) == ("TEXT", told)
    assert as_header(load, "bin") == b""


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 10**12))
@example(0.5, 0.5, 0)
def test_smoothing_stays_between_what_was_and_what_is(before: float, now: float, passed_ns: int) -> None:
    low, high = sorted((before, now))
    assert low - 1e-6 <= smoothed(before, now, passed_ns) <= high + 1e-6


def test_a_report_is_made_once_in_100_ms_and_its_tuple_repeats() -> None:
    clocks = Clocks()
    reports, one, other = clocks.reports(cpus=2.0), (("x", "1"),), (("x", "2"),)
    first = reports.with_report(one)
    clocks.now_ns, clocks.cpu_ns = FRESH_NS - 1, FRESH_NS
    assert reports.with_report(one) is first
    assert reports.with_report(other)[0] == ("x", "2")
    clocks.now_ns = FRESH_NS
    assert reports.with_report(one) is not first


def test_it_tells_cpu_of_its_share_rates_and_what_no_client_caused() -> None:
    clocks = Clocks()
    reports = clocks.reports(cpus=2.0)
    for _ in range(100):  # ten seconds
        for code in (Code.OK, Code.OK, Code.INVALID_ARGUMENT, Code.UNAVAILABLE):
            reports.count(code)
        clocks.now_ns += FRESH_NS
        clocks.cpu_ns += FRESH_NS // 2
        report = read(reports.with_report(()))
    assert report.cpu_utilization == report.application_utilization == pytest.approx(0.25, rel=1e-3)
    assert (report.rps_fractional, report.eps) == (pytest.approx(40, rel=1e-3), pytest.approx(10, rel=1e-3))
    clocks.admitted, clocks.now_ns = 0.9, clocks.now_ns + FRESH_NS
    assert read(reports.with_report(())).application_utilization == 0.9


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hosts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Stand]]:
    """Two that differ in the CPU time that an answer takes, as far as they tell."""
    data = tmp_path_factory.mktemp("loads")
    write_version(data / "models", "affine", "1", models.affine(2.0))
    made: list[Stand] = []

    def reports(number: int, cost_ns: int) -> LoadReports:
        used = lambda: cost_ns * made[number].log.counts().seen if number < len(made) else 0  # noqa: E731
        return LoadReports(now_ns=monotonic_ns, cpu_ns=used, cpus=1.0, admitted=lambda: 0.0)

    async with AsyncExitStack() as stack:
        for number, cost_ns in enumerate(COST_NS):
            one = standing(
                data / "models", data / str(number), probes=tmp_path_factory.getbasetemp() / "probes",
                rest=number == 0, load_reports=reports(number, cost_ns),
            )  # fmt: skip
            made.append(await stack.enter_async_context(one))
        yield made


@pytest.mark.asyncio(loop_scope="session")
async def test_answers_and_refusals_tell_the_load_in_their_trailers(hosts: list[Stand]) -> None:
    # grpcio keeps the report for its own balancing, so its bytes are read as they come.
    async with RawClient(int(hosts[0].address.rpartition(":")[2])) as client:
        unfit = pb.ModelInferRequest(model_name="affine", inputs=[{"name": "z", "datatype": "FP32", "shape": [1]}])
        for request, status in ((good(1), b"0"), (pb.ModelInferRequest(model_name="none"), b"5"), (unfit, b"3")):
            body = message(request.SerializeToString())
            fields, _ = await client.answer(await client.request(request_headers(INFER), body))
            report = REPORT.FromString(b64decode(fields[TRAILER.encode()] + b"=="))
            assert (fields[b"grpc-status"], report.cpu_utilization >= 0) == (status, True)
        body = message(predict("affine", x=floats(np.ones((1, 4)))).SerializeToString())
        fields, _ = await client.answer(await client.request(request_headers(PREDICT), body))
        assert (fields[b"grpc-status"], TRAILER.encode() in fields) == (b"0", True)


@dataclass
class Sender:
    """Of a message of which the beginning has come."""

    deadline_ns: int = 0
    principal: Principal = ANONYMOUS
    quota_pass: QuotaPass | None = None


@pytest.mark.asyncio(loop_scope="session")
async def test_a_message_that_is_refused_at_its_beginning_counts(hosts: list[Stand]) -> None:
    clocks = Clocks()
    reports = clocks.reports()
    exchanges = Exchanges(hosts[0].engine, max_answer_bytes=1, default_timeout_s=1.0, load_reports=reports)
    with pytest.raises(ResourceExhausted):
        exchanges.foresee("affine", "", Sender(), 1 << 40)
    clocks.now_ns += FRESH_NS
    report = read(reports.with_report(()))
    assert report.eps == report.rps_fractional > 0


@pytest.mark.asyncio(loop_scope="session")
async def test_a_stream_s_answers_do_not_tell_the_load(hosts: list[Stand]) -> None:
    async def one() -> AsyncIterator[pb.ModelInferRequest]:
        yield good(1)

    [answer] = [answer async for answer in hosts[0].stub.ModelStreamInfer(one())]
    assert (answer.error_message, TRAILER in answer.infer_response.parameters) == ("", False)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(("form", "begins"), [("text", "TEXT cpu_utilization="), ("JSON", 'JSON {"cpu_utilization": ')])
async def test_rest_tells_the_load_who_asks_for_it(hosts: list[Stand], form: str, begins: str) -> None:
    asked = {"endpoint-load-metrics-format": form}
    answer = await ask(hosts[0], "POST", path_of("affine"), ROWS, asked)
    assert (answer.status, answer.fields["endpoint-load-metrics"].startswith(begins)) == (200, True)
    refused = await ask(hosts[0], "POST", path_of("none"), ROWS, asked)
    assert (refused.status, refused.fields["endpoint-load-metrics"].startswith(begins)) == (404, True)
    for headers in ({}, {"endpoint-load-metrics-format": "bin"}):
        answer = await ask(hosts[0], "POST", path_of("affine"), ROWS, headers)
        assert (answer.status, "endpoint-load-metrics" in answer.fields) == (200, False)
        assert TRAILER not in answer.fields


@pytest.mark.asyncio(loop_scope="session")
async def test_a_client_sends_more_to_the_host_whose_answers_cost_less(hosts: list[Stand]) -> None:
    options = dict(ChannelTarget(tuple(host.address for host in hosts)).options())
    config = json.loads(options["grpc.service_config"])
    weights = config["loadBalancingConfig"][0]["weighted_round_robin"]
    weights |= {"blackoutPeriod": "0.1s", "weightUpdatePeriod": "0.1s"}  # a client's are a second
    options["grpc.service_config"] = json.dumps(config)
    address = ChannelTarget(tuple(host.address for host in hosts)).address()

    def seen() -> list[int]:
        return [host.log.counts().seen for host in hosts]

    async with grpc.aio.insecure_channel(address, options=list(options.items())) as channel:
        stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        until, begun = monotonic() + 20, seen()
        while min(now - past for now, past in zip(seen(), begun, strict=True)) < 10:  # both are connected
            await stub.ModelInfer(good(1))
            assert monotonic() < until
        while True:
            before = seen()
            for _ in range(100):
                await stub.ModelInfer(good(1))
            cheap, dear = (now - past for now, past in zip(seen(), before, strict=True))
            if cheap > 2.5 * dear:  # four times, once both have reported
                break
            assert monotonic() < until, (cheap, dear)
