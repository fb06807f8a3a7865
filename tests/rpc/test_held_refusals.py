"""Refusals of a busy moment: what each says, and when they leave."""

import asyncio
from typing import Any

import ngh2
import pytest

from gateway.rpc.connection import ConnectionProtocol
from gateway.rpc.held_refusals import HOLD_NS, HeldRefusals
from gateway.rpc.message import ByteBudget
from gateway.rpc.metadata import percent_encoded
from gateway.rpc.method import MethodTable
from gateway.rpc.output import REFUSED, Output
from gateway.rpc.server import ServerOptions
from gateway.rpc.server_call import RESPONSE
from gateway.rpc.server_state import ServerState
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.service import NAME, OVERLOAD, Behaviour, handlers
from tests.rpc.serving import Served, refused

SECOND = 1_000_000_000


async def test_each_of_many_refusals_says_the_same_and_when_to_come_again_itself(served: Served) -> None:
    errors = await asyncio.gather(*(refused(served.unary("Overload")(b"%d" % number)) for number in range(30)))
    for number, error in enumerate(errors):
        trailing: Any = error.trailing_metadata()
        trailers = dict(trailing)
        assert (error.code().name, error.details()) == ("RESOURCE_EXHAUSTED", OVERLOAD)
        assert (trailers["x-why"], trailers["x-id"]) == ("load", str(number))
        assert trailers.get("grpc-retry-pushback-ms", str(number)) == str(number)  # grpcio's client keeps it to itself


async def test_refusals_and_answers_of_one_connection_all_come(fast: Served) -> None:
    async with RawClient(fast.server.port) as client:
        heads = [request_headers("EchoNow" if number % 7 == 6 else "Overload") for number in range(42)]
        streams = [await client.request(head, message(b"%d" % number)) for number, head in enumerate(heads)]
        for number, stream_id in enumerate(streams):
            fields, body = await client.answer(stream_id)
            if number % 7 == 6:
                assert (fields[b"grpc-status"], body) == (b"0", message(b"%d" % number))
            else:
                assert (fields[b"grpc-status"], fields[b"grpc-message"]) == (b"8", percent_encoded(OVERLOAD))
                assert fields[b"grpc-retry-pushback-ms"] == b"%d" % number


class Written(asyncio.Transport):
    """A transport in memory: what is written is kept for a client, who is told."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.wrote = asyncio.Event()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        self.wrote.set()


class Broken(Written):
    """A transport whose write is a defect."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise LookupError("no write")


async def test_a_connection_that_cannot_write_keeps_no_refusal_of_another() -> None:
    loop = asyncio.get_running_loop()
    held, told, sound = HeldRefusals(loop), asyncio.Event(), Written()
    loop.set_exception_handler(lambda loop, context: told.set())
    held.take(_with_something_to_write(loop, Written()), SECOND)  # leaves at once; those after it wait
    for transport in (Broken(), sound):
        held.take(_with_something_to_write(loop, transport), SECOND + 1)
    assert not sound.writes
    async with asyncio.timeout(10):
        await sound.wrote.wait()
    assert told.is_set()


def _with_something_to_write(loop: asyncio.AbstractEventLoop, transport: Written) -> Output:
    server = ngh2.Connection(ngh2.Role.SERVER)
    server.initiate_connection()
    output = Output(server, loop, lambda events: None, print, budget=ByteBudget(1 << 20), max_send_bytes=1 << 20)
    output.open(transport, {})
    output.refusals = REFUSED
    return output


@pytest.mark.parametrize("beside", ["nothing", "ping", "settings", "upload"])
async def test_what_a_peer_waits_for_leaves_at_once_beside_a_refusal(beside: str) -> None:
    methods = MethodTable()
    methods.register(NAME, handlers(Behaviour()))
    state = ServerState(ServerOptions(), methods, asyncio.get_running_loop())
    protocol, transport = ConnectionProtocol(state), Written()
    protocol.connection_made(transport)
    client = ngh2.Connection(ngh2.Role.CLIENT)
    client.initiate_connection()

    def writes() -> int:
        before, data = len(transport.writes), client.data_to_send()
        state.buffer[: len(data)] = data
        protocol.buffer_updated(len(data))
        return len(transport.writes) - before

    def refuse() -> None:
        client.send_data(client.send_request(request_headers("Overload")), message(b"1"), end_stream=True)

    upload = client.send_request(request_headers("EchoNow"))
    client.send_data(upload, message(bytes(100))[:10])
    await asyncio.sleep(0)
    for _ in range(1000):  # until one waits for others: two may be more than 4 ms apart
        refuse()
        if not writes():
            break
    refuse()
    if beside == "ping":
        client.ping(b"12345678")
    elif beside == "settings":
        client.update_settings({ngh2.Setting.INITIAL_WINDOW_SIZE: 1 << 17})
    elif beside == "upload":
        client.send_data(upload, bytes(10))
    assert writes() == (beside != "nothing")
    protocol.connection_lost(None)
    state.wheel.stop()
    state.inflater.stop()


@pytest.mark.parametrize("taken_along", [False, True])
async def test_the_first_refusal_leaves_at_once_and_those_behind_it_together(taken_along: bool) -> None:
    server, client = ngh2.Connection(ngh2.Role.SERVER), ngh2.Connection(ngh2.Role.CLIENT)
    server.initiate_connection()
    client.initiate_connection()
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    output = Output(
        server, loop, lambda events: None, errors.append, budget=ByteBudget(1 << 20), max_send_bytes=1 << 20
    )
    transport = Written()
    output.open(transport, {})
    output.flush()
    held = HeldRefusals(loop)

    def refuse(now_ns: int) -> None:
        client.send_request(request_headers("Overload"), end_stream=True)
        output.reading = True
        server.receive_data(client.data_to_send())
        (stream_id,) = (event.stream_id for event in server.events() if isinstance(event, ngh2.RequestReceived))
        server.send_response(stream_id, (*RESPONSE, (b"grpc-status", b"8")), end_stream=True)
        output.schedule_refusal()
        output.reading = False
        assert output.refusals & REFUSED
        held.take(output, now_ns)

    refuse(SECOND)
    assert len(transport.writes) == 2
    for number in range(5):
        refuse(SECOND + HOLD_NS + number)
    assert len(transport.writes) == 2
    if taken_along:
        output.flush()
    else:
        transport.wrote.clear()
        async with asyncio.timeout(10):
            await transport.wrote.wait()
    assert len(transport.writes) == 3
    for data in transport.writes:
        client.receive_data(data)
    assert sum(isinstance(event, ngh2.ResponseReceived) for event in client.events()) == 6
    refuse(3 * SECOND)  # after a while the first one leaves at once again
    assert len(transport.writes) == 4
    assert not errors
