"""grpcio's own health and reflection servicers, registered as they come, over both transports."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from gateway.rpc.server import Server, ServerOptions
from tests.rpc.serving import TRANSPORTS, make, refused

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
HEALTH = "grpc.health.v1.Health"


@pytest.fixture
def servicer() -> Any:
    return health.aio.HealthServicer()  # type: ignore[attr-defined]


@pytest.fixture(params=TRANSPORTS)
async def channel(request: pytest.FixtureRequest, servicer: Any) -> AsyncIterator[grpc.aio.Channel]:
    server: Server = make(request.param, ServerOptions(reuse_port=False))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    # `enable_server_reflection` takes the blocking servicer for every server that is not grpc.aio's own class.
    names = (HEALTH, reflection.SERVICE_NAME)
    reflected = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, server)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened
    await server.stop(0)


async def test_health_check(channel: grpc.aio.Channel, servicer: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    await servicer.set("model", NOT_SERVING)
    assert (await stub.Check(health_pb2.HealthCheckRequest(service="model"))).status == NOT_SERVING
    error = await refused(stub.Check(health_pb2.HealthCheckRequest(service="none")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_health_watch_tells_each_change(channel: grpc.aio.Channel, servicer: Any) -> None:
    await servicer.set("model", NOT_SERVING)
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="model"))
    for status in (NOT_SERVING, SERVING, NOT_SERVING):
        await servicer.set("model", status)
        assert (await call.read()).status == status
    call.cancel()


async def test_reflection_lists_and_describes(channel: grpc.aio.Channel) -> None:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = await call.read()
    assert {service.name for service in listed.list_services_response.service} == {HEALTH, reflection.SERVICE_NAME}
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=HEALTH))
    described = await call.read()
    assert b"HealthCheckRequest" in described.file_descriptor_response.file_descriptor_proto[0]
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
