"""What refusals of a transport say, and the budgets that lead to them."""

from typing import Any

import ngh2

from gateway.rpc.grpcio import GrpcioServer
from tests.rpc.raw import RawClient
from tests.rpc.serving import Served

MIB = 1 << 20
EXHAUSTED = b"8"
PUSHBACK = b"grpc-retry-pushback-ms"


def told_to_come_later(fields: dict[bytes, bytes]) -> bool:
    """Whether the answer is a refusal that says when to come again."""
    return fields[b"grpc-status"] == EXHAUSTED and 50 <= int(fields[PUSHBACK]) < 250


def told_never_to_come(fields: dict[bytes, bytes]) -> bool:
    """Whether the answer is a refusal of a call that is itself beyond a limit."""
    return fields[b"grpc-status"] == EXHAUSTED and fields[PUSHBACK] == b"-1"


def budget(served: Served, name: str) -> Any:
    """The server's budget of that name, whatever its transport."""
    owner: Any = served.server
    return getattr(owner._calls if isinstance(owner, GrpcioServer) else owner._state, name)


def ended(client: RawClient) -> set[int]:
    return {event.stream_id for event in client.events if isinstance(event, ngh2.StreamClosed)}
