"""Health of the server and of each model; reflection of every service."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from gateway.api.reflection import REFLECTION_SERVICES, service_names
from tests.api.conftest import fill_small
from tests.api.stand import Stand, standing

pytestmark = pytest.mark.asyncio(loop_scope="session")

Status = health_pb2.HealthCheckResponse


async def check(stand: Stand, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(stand.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    status: int = response.status
    return status


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "model/affine"])
async def test_what_serves_is_serving(stand: Stand, service: str) -> None:
    assert await check(stand, service) == Status.SERVING


async def test_a_model_that_failed_is_not_serving(stand: Stand) -> None:
    assert await check(stand, "model/broken") == Status.NOT_SERVING


@pytest.mark.parametrize("service", ["nobody", "model/nobody", "model/", "model/../etc", "\x1b[31m" * 100])
async def test_unknown_services_are_not_found(stand: Stand, service: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(stand, service)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert (caught.value.details() or "").isprintable()


async def test_a_watch_follows_a_model(tmp_path: Path, probes: Path) -> None:
    fill_small(tmp_path / "models")
    async with standing(tmp_path / "models", tmp_path, probes=probes) as own:
        stub = health_pb2_grpc.HealthStub(own.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="model/affine"))
        async with asyncio.timeout(10):
            assert (await watch.read()).status == Status.SERVING
            await own.catalog.unload("affine")
            assert (await watch.read()).status == Status.SERVICE_UNKNOWN
            await own.catalog.load("affine")
            assert (await watch.read()).status in (Status.NOT_SERVING, Status.SERVING)
            own.health.drain()
            while (await watch.read()).status != Status.NOT_SERVING:
                pass
            assert await check(own, "") == Status.NOT_SERVING


async def test_watches_are_bounded_and_given_back(stand: Stand) -> None:
    stub = health_pb2_grpc.HealthStub(stand.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(service=f"unknown-{index}")) for index in range(4)]
    for watch in watches:
        assert (await watch.read()).status == Status.SERVICE_UNKNOWN
    one_more = stub.Watch(health_pb2.HealthCheckRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await one_more.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for watch in watches:
        watch.cancel()
    async with asyncio.timeout(10):
        while stand.health.watchers:  # noqa: ASYNC110 (nobody announces the end of a watch)
            await asyncio.sleep(0)


# ---- reflection ----


async def ask(
    stand: Stand, service: str, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    call = stand.channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(iter(requests))
    return [answer async for answer in call]


@pytest.mark.parametrize("service", REFLECTION_SERVICES)
async def test_every_service_is_listed_and_described(stand: Stand, service: str) -> None:
    (answer,) = await ask(stand, service, reflection_pb2.ServerReflectionRequest(list_services="*"))
    listed = {item.name for item in answer.list_services_response.service}
    assert listed == set(service_names())
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= listed
    named = sorted(listed - set(REFLECTION_SERVICES))
    described = await ask(
        stand,
        service,
        *(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in named),
    )
    for name, answer in zip(named, described, strict=True):
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(file)
            for file in answer.file_descriptor_response.file_descriptor_proto
        ]
        names = {f"{file.package}.{item.name}" for file in files for item in file.service}
        assert name in names


async def test_reflection_answers_what_it_does_not_know(stand: Stand) -> None:
    for question in (
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such"),
        reflection_pb2.ServerReflectionRequest(file_by_filename="no_such.proto"),
        reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="no.Such"),
    ):
        (answer,) = await ask(stand, REFLECTION_SERVICES[0], question)
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    question = reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="inference.ModelInferRequest")
    (answer,) = await ask(stand, REFLECTION_SERVICES[0], question)
    assert not answer.all_extension_numbers_response.extension_number
