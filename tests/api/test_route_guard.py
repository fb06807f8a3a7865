"""A load test's guard: death in the middle of a change, a server that is away, somebody else, another load test."""

import asyncio
import json
import subprocess

import msgspec
import pytest

from gateway.pb.control_pb2_grpc import add_ControlServicer_to_server
from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.server import ServerOptions
from loadtests.job.route_changes import RouteChanges
from loadtests.job.route_guard import _COMMAND, GuardOrder, RouteGuard
from loadtests.job.scenario_plan import FlipPlan
from loadtests.job.target import LoadTarget, TargetFailed
from tests.api.operated import Operated
from tests.api.routes import ab

pytestmark = pytest.mark.asyncio(loop_scope="session")
OWNER = "loadtests-0123456789ab"


def target_of(op: Operated, control: str = "") -> LoadTarget:
    return LoadTarget(server=op.stand.address, control=control or op.server)


def flips(op: Operated, owner: str) -> RouteChanges:
    return RouteChanges(target_of(op), "affine", FlipPlan(0.05, ("1", "2")), seconds=60, key=None, owner=owner)


def guard_of(target: LoadTarget) -> "subprocess.Popen[bytes]":
    """A guard as a load test starts it, which has kept the route; it looks on for 3 s after its death."""
    guard = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert guard.stdin is not None
    assert guard.stdout is not None
    guard.stdin.write(msgspec.json.encode(GuardOrder(target, "affine", OWNER, late_s=3.0)) + b"\n")
    guard.stdin.flush()
    assert "kept" in json.loads(guard.stdout.readline())
    return guard


async def loaded(op: Operated) -> None:
    """The load test's own document is in force."""
    made = await asyncio.to_thread(flips, op, OWNER)
    assert made.log.applied_ms
    assert OWNER in await op.document()


async def until_document(op: Operated, expected: str) -> None:
    async with asyncio.timeout(20):
        while await op.document() != expected:  # noqa: ASYNC110 (another process changes it)
            await asyncio.sleep(0.05)


async def test_no_flip_writes_over_somebody_elses_change(op: Operated) -> None:
    await op.apply(ab())
    guard = await asyncio.to_thread(RouteGuard, target_of(op), "affine")
    try:
        changes = await asyncio.to_thread(flips, op, guard.owner)
        changes.begin(0.0)
        try:
            await op.apply(ab(90, 10))  # as an operator does who sees that something is wrong
            mine = await op.document()
            async with asyncio.timeout(20):
                while not changes.log.problems:  # noqa: ASYNC110 (a thread's list has no event)
                    await asyncio.sleep(0.01)
        finally:
            await asyncio.to_thread(changes.end)
        assert "a change of the route failed" in changes.log.problems[0]
    finally:
        await asyncio.to_thread(guard.__exit__, None, None, None)  # it asks the server that this loop serves
    assert "somebody else has changed the route" in guard.restored
    assert await op.document() == mine


async def test_a_change_that_a_dead_load_test_had_sent_is_taken_back_too(op: Operated) -> None:
    await op.apply(ab())
    before = await op.document()
    guard = await asyncio.to_thread(guard_of, target_of(op))
    assert guard.stdin is not None
    guard.stdin.close()  # SIGKILL: nothing is said
    made = await asyncio.to_thread(flips, op, OWNER)
    assert made.log.applied_ms  # in force, until the guard looks again
    await until_document(op, before)
    assert guard.stdout is not None
    said = await asyncio.to_thread(guard.stdout.readline)
    assert "restored" in json.loads(said)
    guard.stdout.close()
    assert await asyncio.to_thread(guard.wait) == 0


@pytest.mark.long
async def test_a_server_that_is_away_at_the_end_is_waited_for(op: Operated) -> None:
    await op.apply(ab())
    before = await op.document()

    async def server(port: int = 0) -> GrpcioServer:
        made = GrpcioServer(ServerOptions(reuse_port=False, port=port))
        add_ControlServicer_to_server(op.service, made)  # type: ignore[no-untyped-call]
        await made.start()
        return made

    first = await server()
    port = first.port
    guard = await asyncio.to_thread(guard_of, target_of(op, f"127.0.0.1:{port}"))
    await loaded(op)
    await first.stop(0.0)
    assert guard.stdin is not None
    assert guard.stdout is not None
    guard.stdin.write(b"end")
    guard.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        await asyncio.to_thread(guard.wait, 0.5)
    second = await server(port)
    try:
        said = json.loads(await asyncio.to_thread(guard.stdout.readline))
        assert said["restored"].startswith("the route of revision")
        assert await op.document() == before
    finally:
        guard.stdout.close()
        await asyncio.to_thread(guard.wait)
        await second.stop(0.0)


async def test_two_load_tests_do_not_change_one_route(op: Operated) -> None:
    """The second one's guard took the first one's document for the route to bring back."""
    await op.apply(ab())
    before = await op.document()
    guard = await asyncio.to_thread(guard_of, target_of(op))
    await loaded(op)
    with pytest.raises(TargetFailed, match="is that of another load test"):
        await asyncio.to_thread(RouteGuard, target_of(op), "affine")
    out, _ = await asyncio.to_thread(guard.communicate, b"end")
    assert json.loads(out)["restored"].startswith("the route of revision")
    assert await op.document() == before
