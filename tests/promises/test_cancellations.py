"""Cancellations without end, at each stage of a call, leave nothing: no call, no byte, no object, no memory."""

import asyncio
import gc
import os
from pathlib import Path

import pytest

from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.server import ServerOptions
from tests.rpc.raw import RawClient, message, request_headers
from tests.rpc.serving import TRANSPORTS, Served, serving

CANCEL = 8
TOGETHER = 50
CONNECTION = 400  # cancellations: of a client that resets a thousand streams at once the connection ends
# What has come of the call: its head, half of its message, all of it, so that it runs.
STAGES: tuple[tuple[bytes, ...], ...] = ((), (message(b"x" * 3000)[:1500],), (message(b"x"),))
LONG = [pytest.mark.long, pytest.mark.timeout(1800)]
FIRST_USED_MIB = 6  # slots of the wheel of deadlines, which keep the room that they have once had
MEASURABLE = 10_000  # calls; what fewer leave is less than a process that runs many tests moves by itself
# Of memory, for each call. grpcio's server keeps a part of a batch that is cancelled (grpc/grpc#43360): 0.3 to 0.7 KiB.
KEPT_KIB = {"ngh2": 0.01, "grpcio": 1.0}


async def cancelled(served: Served, parts: tuple[bytes, ...], count: int) -> None:
    """So many calls have been cancelled, and nobody waits for any of them."""
    while count:
        async with RawClient(served.server.port) as client:
            now = min(count, CONNECTION)
            count -= now
            while now:
                begun = min(now, TOGETHER)
                now -= begun
                whole = parts == STAGES[-1]
                streams = [await client.request(request_headers("Hold"), *parts, end=whole) for _ in range(begun)]
                await is_well(client)  # what came before is there
                for stream_id in streams:
                    client.h2.reset_stream(stream_id, CANCEL)
                await client.send()
                await is_well(client)
                client.events.clear()
        served.behaviour.held.clear()


async def is_well(client: RawClient) -> None:
    fields, _ = await client.answer(await client.request(request_headers("EchoNow"), message(b"good")))
    assert fields[b"grpc-status"] == b"0"


def holdings() -> tuple[int, float]:
    """The objects that Python knows of, and the process's memory in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return len(gc.get_objects()), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize(
    ("transport", "count"),
    [
        *((one, 100) for one in TRANSPORTS),
        *(pytest.param(one, 100_000, marks=LONG) for one in TRANSPORTS),
    ],
)
async def test_cancellations_leave_nothing(transport: str, count: int) -> None:
    async with serving(transport, ServerOptions(reuse_port=False)) as served:
        for parts in STAGES:
            await cancelled(served, parts, max(50, count // 10))
        assert served.behaviour.events["hold"]
        objects, memory_mib = holdings()
        for parts in STAGES:
            await cancelled(served, parts, count)
        more, now_mib = holdings()
        assert more - objects < 300
        assert (
            count < MEASURABLE
            or now_mib - memory_mib < FIRST_USED_MIB + len(STAGES) * count * KEPT_KIB[transport] / 1024
        )
        owner = served.server._calls if isinstance(served.server, GrpcioServer) else served.server._state  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            while min(one.free_bytes - one.size_bytes for one in (owner.received, owner.unsent)) < -1:
                await served.unary("EchoNow")(b"t")  # of which one byte may be held
