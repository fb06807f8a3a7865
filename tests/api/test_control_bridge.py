"""The control service asked by another process of the host, in the name of a caller."""

from pathlib import Path

import pytest

from gateway.access.principal import ANONYMOUS, Grant, Principal, Role
from gateway.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable, UnknownModel
from gateway.pb import control_pb2 as pb
from gateway.runtime.control_bridge import CONTROL, ControlBridge, bridge_operation, principal_from, principal_value
from gateway.runtime.peers import Payload, Peers, PeerServer, ask, worker_socket
from tests.api.operated import WAIT, Operated
from tests.api.routes import ab

pytestmark = pytest.mark.asyncio(loop_scope="session")
READER = Principal("ada", "", "token", (Grant(Role.READER, ("aff*",)),))


@pytest.fixture
def bridge(tmp_path: Path) -> ControlBridge:
    return ControlBridge(Peers(tmp_path, own_slot=-1, slots=2), workers=2)


def serving(directory: Path, op: Operated) -> PeerServer:
    """The second worker of a host whose first one is away."""
    return PeerServer(worker_socket(directory, 1), {CONTROL: bridge_operation(op.service)})


async def test_a_method_answers_as_over_grpc(tmp_path: Path, op: Operated, bridge: ControlBridge) -> None:
    document = ab()
    async with serving(tmp_path, op):
        request = pb.ApplyRequest(document_json=document.to_json(), change=pb.Change(reason="why"), wait=WAIT)
        applied = await bridge.call("Apply", request, Principal("ada", "", "token", (Grant(Role.ADMIN),)))
        listed = await bridge.call("ListRoutes", pb.ListRoutesRequest(), ANONYMOUS)
        history = await bridge.call("History", pb.HistoryRequest(model=document.model), ANONYMOUS)
        assert [one.model for one in listed.routes] == [document.model]
        assert (history.entries[0].revision, history.entries[0].actor) == (applied.change.revision, "ada")
        with pytest.raises(NotFound, match="nosuch"):
            await bridge.call("GetRoute", pb.GetRouteRequest(model="nosuch"), ANONYMOUS)
        assert await bridge.messages("TailLog", pb.TailLogRequest(backlog=5), ANONYMOUS) == []


async def test_nobody_there_is_unavailable(bridge: ControlBridge) -> None:
    with pytest.raises(Unavailable, match="no worker"):
        await bridge.call("ListRoutes", pb.ListRoutesRequest(), ANONYMOUS)


async def test_what_is_no_question_is_refused(tmp_path: Path, op: Operated) -> None:
    path = worker_socket(tmp_path, 1)
    async with serving(tmp_path, op):
        questions: list[Payload] = [
            {"method": "Nothing", "request": {}, "principal": {}},
            {"method": "ListRoutes", "request": {}, "principal": {}},
            {"method": "ListRoutes", "request": {"x": 1}, "principal": principal_value(ANONYMOUS)},
        ]
        for payload in questions:
            with pytest.raises(InvalidArgument):
                await ask(path, CONTROL, payload)


async def test_a_caller_keeps_name_roles_and_tenant() -> None:
    caller = Principal("ada", "red", "jwt", (Grant(Role.OPERATOR, ("f*", "g")),), 12.5, ("f*",))
    again = principal_from(principal_value(caller))
    assert principal_value(again) == principal_value(caller)
    assert again.roles_on("fraud") == caller.roles_on("fraud")
    assert again.roles_on("g") == frozenset()
    with pytest.raises(PermissionDenied):
        READER.check(frozenset({Role.OPERATOR}), "affine")
    with pytest.raises(UnknownModel):
        principal_from(principal_value(READER)).check(frozenset({Role.READER}), "other")
