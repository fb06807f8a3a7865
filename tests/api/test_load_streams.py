"""Load reports out of band, as gRPC's clients ask for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest

from gateway.api.load_reports import FRESH_NS, LoadReports
from gateway.api.load_streams import LoadStreams
from gateway.errors import Code
from gateway.pb import orca_load_report_pb2, orca_service_pb2
from gateway.pb.orca_service_pb2_grpc import OpenRcaServiceStub, add_OpenRcaServiceServicer_to_server
from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import Server, ServerOptions
from tests.api.test_load_reports import Clocks, published


@asynccontextmanager
async def served(streams: LoadStreams, transport: str) -> AsyncIterator[OpenRcaServiceStub]:
    server: Server = (GrpcioServer if transport == "grpcio" else Ngh2Server)(ServerOptions(reuse_port=False))
    add_OpenRcaServiceServicer_to_server(streams, server)  # type: ignore[no-untyped-call]
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield OpenRcaServiceStub(channel)  # type: ignore[no-untyped-call]
    finally:
        await server.stop(0.0)


def asked(seconds: float = 0.0) -> orca_service_pb2.OrcaLoadReportRequest:
    request = orca_service_pb2.OrcaLoadReportRequest()
    request.report_interval.FromNanoseconds(int(seconds * 1e9))
    return request


def busy(clocks: Clocks, reports: LoadReports) -> None:
    """A tenth of a second with half of the CPU and four answers, one of which failed."""
    for code in (Code.OK, Code.OK, Code.OK, Code.UNAVAILABLE):
        reports.count(code)
    clocks.now_ns += FRESH_NS
    clocks.cpu_ns += FRESH_NS // 2


def test_the_message_is_the_published_one() -> None:
    ours = {field.name: field.number for field in orca_load_report_pb2.OrcaLoadReport.DESCRIPTOR.fields}
    assert ours == {field.name: field.number for field in published().DESCRIPTOR.fields}
    request = orca_service_pb2.OrcaLoadReportRequest.DESCRIPTOR
    assert {field.name: field.number for field in request.fields} == {"report_interval": 1, "request_cost_names": 2}
    assert orca_service_pb2.DESCRIPTOR.services_by_name["OpenRcaService"].methods[0].name == "StreamCoreMetrics"


@pytest.mark.parametrize("transport", ["ngh2", "grpcio"])
async def test_a_client_is_told_at_once_and_again_in_its_interval(transport: str) -> None:
    clocks = Clocks()
    reports = clocks.reports()
    streams = LoadStreams(reports, min_interval_s=0.02, max_streams=1)
    async with served(streams, transport) as stub:
        call = stub.StreamCoreMetrics(asked(), timeout=20)
        first = await call.read()
        assert (first.cpu_utilization, first.rps_fractional) == (0.0, 0.0)
        for _ in range(100):
            busy(clocks, reports)
            reports.message()
        told = await call.read()
        while not told.rps_fractional:  # one may have been on its way
            told = await call.read()
        assert told.cpu_utilization == pytest.approx(0.5, rel=1e-2)
        assert told.rps_fractional == pytest.approx(40, rel=1e-2)
        assert told.eps == pytest.approx(10, rel=1e-2)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.StreamCoreMetrics(asked(), timeout=20).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams.drain()
        async with asyncio.timeout(20):
            while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
        assert await call.code() is grpc.StatusCode.OK
    assert streams.open_streams == 0


async def test_nobody_has_them_more_often_than_they_are_made() -> None:
    """Whatever interval is asked for, also one of nothing or below it."""
    streams = LoadStreams(Clocks().reports())
    for seconds in (0.0, -5.0, 0.001):
        told = streams.StreamCoreMetrics(asked(seconds), None)
        assert await anext(told)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(told)
    assert streams.open_streams == 0


async def test_a_worker_that_tells_no_load_says_so() -> None:
    async with served(LoadStreams(None), "ngh2") as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.StreamCoreMetrics(asked(), timeout=20).read()
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "--load-reports" in (refused.value.details() or "")
