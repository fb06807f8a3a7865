"""Closed by default: each registered method, called as nobody, with each role, and by another tenant."""

from functools import reduce
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.access.directory import Directory
from gateway.access.permissions import PAGES, RPCS, Permission, Scope, check_registered
from gateway.access.principal import INCLUDED, Role
from gateway.access.roles_file import parse_roles
from gateway.access.token_file import parse_tokens
from gateway.api.reflection import REFLECTION_SERVICES
from gateway.pb import control_pb2, inference_pb2, orca_service_pb2, tensorflow_serving_pb2
from gateway.pb.control_pb2_grpc import ControlStub
from tests.access.guarded import CALLERS, Guarded, directory, guarded, header, token_of
from tests.api.calls import good
from tests.api.operated import Operated
from tests.api.routes import ab

pytestmark = pytest.mark.asyncio(loop_scope="session")
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for served in (inference_pb2, tensorflow_serving_pb2, control_pb2, orca_service_pb2, health_pb2, reflection_pb2)
    for service in served.DESCRIPTOR.services_by_name.values()
    for method in service.methods_by_name.values()
}
METHODS["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] = METHODS[
    f"/{REFLECTION_SERVICES[1]}/ServerReflectionInfo"
]
REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
LOADS = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"
# The handler of a stream that follows something for ever is asked for nothing that it would wait for.
ENDLESS = {"/gateway.v1.Control/Watch", "/gateway.v1.Control/TailLog", "/grpc.health.v1.Health/Watch", LOADS}


async def status(port: Guarded, path: str, caller: str, message: bytes = b"") -> tuple[grpc.StatusCode, str]:
    """How a call of a method ends, or that its first answer came."""
    method = METHODS[path]
    metadata = header(caller)
    call = port.call(path, request_streaming=method.client_streaming, response_streaming=method.server_streaming)
    try:
        if method.client_streaming:  # grpc's client forgets a status that comes before its message has gone
            made = call(iter(()), metadata=metadata, timeout=10)
        else:
            made = call(message, metadata=metadata, timeout=10)
        if not method.server_streaming:
            await made
        elif path in ENDLESS:
            await made.read()
            made.cancel()
        else:
            async for _ in made:
                break
            made.cancel()
    except grpc.aio.AioRpcError as error:
        return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""


def request_for(path: str, model: str, draft: str) -> bytes:
    """A request of a method that names the model where the method names one; otherwise it may be refused for its own
    faults, after the caller was let in."""
    permission = RPCS[path]
    described: Any = METHODS[path].input_type
    message = described._concrete_class()
    if permission.scope is Scope.FIELD:
        *parents, field = permission.field.split(".")
        setattr(reduce(getattr, parents, message), field, permission.prefix + model)
    elif permission.scope is Scope.DOCUMENT:
        message.document_json = ab().to_json().replace('"affine"', f'"{model}"')
    elif permission.scope is Scope.DRAFT:
        message.id = draft
    elif path.endswith("/SendFeedback"):
        message.items.add(model=model, request_id="r", number=1.0)
    elif path.endswith(("/Predict", "/Classify", "/Regress")):
        message.model_spec.name = model
    elif path.endswith(("/ModelInfer", "/ModelStreamInfer")):
        message = good(model=model)
    return bytes(message.SerializeToString())


def may(role: Role, permission: Permission) -> bool:
    return permission.is_open or not INCLUDED[role].isdisjoint(permission.roles)


async def test_the_table_is_what_is_registered(port: Guarded) -> None:
    assert set(port.server.paths()) == set(RPCS) == set(METHODS)


async def test_a_method_that_the_table_misses_stops_the_start() -> None:
    with pytest.raises(TypeError, match=r"/a\.B/New"):
        check_registered(["/a.B/New", *RPCS], RPCS)
    with pytest.raises(TypeError, match="/debug"):
        check_registered([*PAGES, "/debug"], PAGES)


@pytest.mark.parametrize("path", sorted(RPCS))
async def test_nobody_is_told_nothing_but_health(port: Guarded, path: str) -> None:
    code, text = await status(port, path, "")
    if RPCS[path].is_open:
        assert code is grpc.StatusCode.OK
        return
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "authorization: Bearer TOKEN" in text


@pytest.mark.parametrize("path", sorted(RPCS))
async def test_each_role_may_call_what_the_table_gives_it(port: Guarded, worker: Operated, path: str) -> None:
    permission = RPCS[path]
    # A model that is not there: whoever is let in changes nothing.
    message = request_for(path, "affine", "0123456789ab")
    for role in Role:
        if may(role, permission) and permission.roles and not permission.roles & {Role.INFER, Role.READER}:
            continue  # let in: what it does is the test of its own handler
        code, text = await status(port, path, role.value, message)
        if permission.scope is Scope.EVERYWHERE or not may(role, permission):
            assert code is grpc.StatusCode.PERMISSION_DENIED, (role, code, text)
            assert "needs the role" in text
            assert token_of(role.value) not in text
        else:
            assert code not in REFUSED, (role, code, text)


@pytest.mark.parametrize(
    "path", [path for path, needed in sorted(RPCS.items()) if needed.scope not in (Scope.SERVER, Scope.EVERYWHERE)]
)
async def test_the_models_of_another_tenant_are_unknown_whether_they_are_there_or_not(
    port: Guarded, worker: Operated, path: str
) -> None:
    asked = control_pb2.DraftRequest(document_json=ab().to_json(), change=control_pb2.Change(actor="a"))
    draft: control_pb2.DraftState = await port.control.Draft(asked, metadata=header("author"))
    told = []
    for model, named in (("affine", draft.id), ("no-such", "0123456789ab")):
        message = request_for(path, model, named)
        code, text = await status(port, path, "other", message)
        if path.endswith("/ModelStreamInfer"):
            told.append(await streamed(port, message))
        else:
            assert code is grpc.StatusCode.NOT_FOUND, (code, text)
            told.append(text.replace(model, "MODEL").replace(named, "DRAFT"))
    assert told[0] == told[1]


async def streamed(port: Guarded, message: bytes) -> str:
    request = inference_pb2.ModelInferRequest.FromString(message)
    async for answer in port.inference.ModelStreamInfer(iter((request,)), metadata=header("other"), timeout=10):
        return str(answer.error_message).replace(request.model_name, "MODEL")
    raise AssertionError("no answer")


async def test_foreign_names_are_told_of_as_unknown_ones(port: Guarded) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as foreign:
        await port.inference.ModelInfer(good(model="affine"), metadata=header("other"))
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await port.inference.ModelInfer(good(model="other-not-there"), metadata=header("other"))
    texts = [str(caught.value.details()) for caught in (foreign, unknown)]
    assert texts[0].replace("affine", "NAME") == texts[1].replace("other-not-there", "NAME")
    assert foreign.value.code() is unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_lists_show_the_models_that_the_caller_knows(port: Guarded, worker: Operated) -> None:
    await worker.apply(ab())
    routes = await port.control.ListRoutes(control_pb2.ListRoutesRequest(), metadata=header("other"))
    assert not routes.routes
    mine = await port.control.ListRoutes(control_pb2.ListRoutesRequest(), metadata=header("reader"))
    assert [route.model for route in mine.routes] == ["affine"]
    index = await port.inference.RepositoryIndex(inference_pb2.RepositoryIndexRequest(), metadata=header("other"))
    assert {entry.name for entry in index.models} == {"other"}
    models = await port.control.Models(control_pb2.ModelsRequest(), metadata=header("other"))
    assert {version.model for version in models.versions} == {"other"}
    audit = await port.control.Audit(control_pb2.AuditRequest(), metadata=header("other"))
    assert not audit.entries
    statistics = await port.inference.ModelStatistics(inference_pb2.ModelStatisticsRequest(), metadata=header("other"))
    assert {one.name for one in statistics.model_stats} == {"other"}


async def test_watching_tells_of_the_models_that_the_caller_knows(port: Guarded, worker: Operated) -> None:
    await worker.apply(ab())
    asked = control_pb2.WatchRequest(backlog=10)
    for caller, models in (("other", set()), ("reader", {"affine"})):
        seen = set()
        async for event in port.control.Watch(asked, metadata=header(caller), timeout=10):
            if event.HasField("committed"):
                seen.add(event.committed.model)
            if event.settled:
                break
        assert seen == models


async def test_every_caller_of_the_tests_has_a_role() -> None:
    assert {role.split()[0] for role, _ in CALLERS.values()} == set(Role)


async def test_operators_methods_leave_the_applications_port(worker: Operated, tmp_path: Path) -> None:
    """Every method is at one of the two addresses; what changes something for all is at the operators' alone."""
    async with guarded(worker, "ngh2", tmp_path, control_port=0) as apart:
        assert apart.operators is not None
        here, there = set(apart.server.paths()), set(apart.operators.paths())
        assert here | there == set(RPCS)
        assert {path for path in here & there if not RPCS[path].is_open} == {
            "/gateway.v1.Control/SendFeedback",
            "/gateway.v1.Control/ServerVersion",
            *(f"/{service}/ServerReflectionInfo" for service in REFLECTION_SERVICES),
        }
        strong = {Role.OPERATOR, Role.APPROVER, Role.ADMIN}
        assert not [path for path in here if RPCS[path].roles & strong]
        # The other address is guarded as well.
        async with grpc.aio.insecure_channel(f"127.0.0.1:{apart.operators.port}") as channel:
            stub = ControlStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListRoutes(control_pb2.ListRoutesRequest())
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            await stub.ListRoutes(control_pb2.ListRoutesRequest(), metadata=header("reader"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await apart.control.ListRoutes(control_pb2.ListRoutesRequest(), metadata=header("reader"))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_running_stream_ends_with_the_next_message_once_its_token_is_revoked(port: Guarded) -> None:
    """As a unary call does: inference, reflection, and what follows something."""
    metadata = header("admin")
    streams = {
        "/inference.GRPCInferenceService/ModelStreamInfer": good().SerializeToString(),
        f"/{REFLECTION_SERVICES[0]}/ServerReflectionInfo": b"",
    }
    calls = {
        path: port.call(path, request_streaming=True, response_streaming=True)(metadata=metadata, timeout=10)
        for path in streams
    }
    for path, call in calls.items():
        await call.write(streams[path])
        assert isinstance(await call.read(), bytes)
    port.gatekeeper.replace(Directory(parse_tokens(""), parse_roles("{}")))
    try:
        for path, call in calls.items():
            await call.write(streams[path])
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, path
    finally:
        port.gatekeeper.replace(directory())
