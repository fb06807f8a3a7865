"""What a connection lets its client send before a call is let in."""

import asyncio
from typing import Any

import ngh2

from gateway.rpc.message import ByteBudget
from gateway.rpc.output import UNREAD_BYTES, Output

SECOND = 1_000_000_000


async def test_new_calls_send_less_while_some_are_refused_and_as_much_as_ever_later() -> None:
    server, client = ngh2.Connection(ngh2.Role.SERVER), ngh2.Connection(ngh2.Role.CLIENT)
    server.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: UNREAD_BYTES})
    client.initiate_connection()
    errors: list[Any] = []
    output = Output(
        server,
        asyncio.get_running_loop(),
        errors.append,
        errors.append,
        budget=ByteBudget(1 << 20),
        max_send_bytes=1 << 20,
    )
    output.reading = True  # nothing is written but by `told`

    def told() -> int:
        client.receive_data(server.data_to_send())
        server.receive_data(client.data_to_send())
        return client.remote_settings[ngh2.Setting.INITIAL_WINDOW_SIZE]

    assert told() == UNREAD_BYTES
    for now_ns in (1 * SECOND, 2 * SECOND):
        output.received_ns = now_ns
        output.crowd()
        assert told() == output.unread_bytes == UNREAD_BYTES // 4
    output.received_ns = 3 * SECOND
    output.relax()
    assert told() == output.unread_bytes == UNREAD_BYTES // 4
    output.received_ns = 3 * SECOND + 1
    output.relax()
    assert told() == output.unread_bytes == UNREAD_BYTES
    assert not errors
