"""How connections and servers end: drain, age, idleness, keepalive; and TLS at their beginning."""

import asyncio
import ssl
from pathlib import Path

import grpc
import ngh2
import pytest
import uvloop

from gateway.errors import InvalidArgument
from gateway.rpc.server import ServerOptions
from gateway.rpc.server_certificate import TlsFiles
from tests.machine_load import as_loaded
from tests.rpc.raw import DATA, RawClient, message, raw_frame, request_headers
from tests.rpc.service import Behaviour, register
from tests.rpc.serving import CERTIFICATES, MUTUAL_TLS, TLS, TRANSPORTS, Served, make, path, refused, serving


def going_away(client: RawClient) -> bool:
    return any(isinstance(event, ngh2.GoAwayReceived | ngh2.ConnectionClosed) for event in client.events)


async def is_served(served: Served) -> bool:
    try:
        return await served.unary("EchoNow")(b"new", timeout=2) == b"new"
    except grpc.aio.AioRpcError:
        return False


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_stop_lets_running_calls_end(transport: str) -> None:
    async with serving(transport) as served:
        call = served.unary("Hold")(b"")
        waiting = asyncio.ensure_future(asyncio.wait_for(call, 10))
        await served.behaviour.until("hold")
        stopping = asyncio.ensure_future(served.server.stop(5))
        async with asyncio.timeout(5):
            while await is_served(served):
                pass
        served.behaviour.held[0].answer(b"done")
        assert await waiting == b"done"
        await asyncio.wait_for(stopping, 4)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_stop_ends_what_does_not_end_in_time(transport: str) -> None:
    async with serving(transport) as served:
        calls = [asyncio.ensure_future(refused(served.unary(method)(b""))) for method in ("Hold", "Sleep")]
        await served.behaviour.until("hold")
        await served.behaviour.until("sleep")
        await asyncio.wait_for(served.server.stop(0.1), 5)
        for call in calls:
            assert (await call).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert served.behaviour.events["hold cancelled"] == 1
        assert served.behaviour.events["sleep cancelled"] == 1


async def test_a_drained_connection_is_asked_to_go_and_finishes_its_calls() -> None:
    options = ServerOptions(reuse_port=False, max_connection_age_s=0.3, age_grace_s=5)
    async with serving("ngh2", options) as served, RawClient(served.server.port) as client:
        stream_id = await client.request(request_headers("Hold"), message(b""))
        await served.behaviour.until("hold")
        await client.until(going_away)
        served.behaviour.held[0].answer(b"done")
        fields, body = await client.answer(stream_id)
        assert (fields[b"grpc-status"], body) == (b"0", message(b"done"))
        await client.until_closed()
        assert client.went_away() == 0


@pytest.mark.parametrize("tls", [None, TLS], ids=["plain", "TLS"])
def test_an_answer_on_its_way_reaches_a_client_that_still_writes(tls: TlsFiles | None) -> None:
    """Otherwise what the client writes to a closed socket is answered by a reset, and the answer is cut."""
    options = ServerOptions(reuse_port=False, max_connection_age_s=0.3, age_grace_s=5, max_ping_strikes=10**6, tls=tls)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # asyncio's TLS resets
        runner.run(_writes_while_it_is_answered(options))


async def _writes_while_it_is_answered(options: ServerOptions) -> None:
    context = None if options.tls is None else ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem"))
    if context is not None:
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
    async with (
        serving("ngh2", options) as served,
        RawClient(served.server.port, {ngh2.Setting.INITIAL_WINDOW_SIZE: 1 << 24}, tls=context) as client,
    ):
        client.h2.set_local_window_size(1 << 24)
        stream_id = await client.request(request_headers("Hold"), message(b""))
        await served.behaviour.until("hold")
        await client.until(lambda self: sum(isinstance(event, ngh2.GoAwayReceived) for event in self.events) == 2)
        answer = bytes(3_000_000)
        served.behaviour.held[0].answer(answer)
        while not client.ended(stream_id):
            assert not client.closed
            client.h2.ping(b"still on")
            await client.send()
            await client.step()
        fields, body = client.seen(stream_id)
        assert (fields[b"grpc-status"], len(body)) == (b"0", len(message(answer)))


async def test_a_peer_that_breaks_http2_and_stays_has_no_calls_any_more() -> None:
    async with serving("ngh2") as served, RawClient(served.server.port) as client:
        await client.request(request_headers("Hold"), message(b""))
        await served.behaviour.until("hold")
        await client.send_raw(raw_frame(DATA, 0, b"x"))
        await served.behaviour.until("hold cancelled", limit_s=3)


async def test_a_client_that_never_goes_holds_up_no_stop() -> None:
    """A worker that has not ended a second after the grace time is killed, with what it has not logged."""
    options = ServerOptions(reuse_port=False, keepalive_timeout_s=600.0)
    async with serving("ngh2", options) as served, RawClient(served.server.port) as client:
        await client.answer(await client.request(request_headers("EchoNow"), message(b"")))
        stopping = asyncio.create_task(served.server.stop(0.2))
        await client.until_closed()  # its own side stays open
        await asyncio.wait_for(stopping, as_loaded(1.2))


async def test_a_connection_ends_at_its_age_and_grace_whatever_it_does() -> None:
    options = ServerOptions(reuse_port=False, max_connection_age_s=0.2, age_grace_s=0.2)
    async with serving("ngh2", options) as served, RawClient(served.server.port) as client:
        await client.request(request_headers("Chat"), message(b"x"), end=False)
        await client.until_closed(limit_s=3)
        await served.behaviour.until("chat over")


async def test_an_idle_connection_is_closed() -> None:
    options = ServerOptions(reuse_port=False, idle_timeout_s=0.2, keepalive_time_s=0.1)
    async with serving("ngh2", options) as served, RawClient(served.server.port) as client:
        await client.until_closed(limit_s=3)
        assert client.went_away() == 0


async def test_a_connection_that_answers_pings_is_kept_and_one_that_does_not_is_closed() -> None:
    options = ServerOptions(reuse_port=False, keepalive_time_s=0.1, keepalive_timeout_s=0.2)
    async with serving("ngh2", options) as served, RawClient(served.server.port) as client:
        await client.until(lambda self: sum(isinstance(e, ngh2.PingReceived) for e in self.events) >= 5)
        stream_id = await client.request(request_headers("Hold"), message(b""))
        await served.behaviour.until("hold")
        # The client reads nothing more and so acknowledges nothing.
        await served.behaviour.until("hold cancelled", limit_s=3)
        assert stream_id


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_clients_move_on_without_an_error_when_connections_age(transport: str) -> None:
    options = ServerOptions(reuse_port=False, max_connection_age_s=0.3, age_grace_s=2)
    async with serving(transport, options) as served:
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.5
        number = 0
        while loop.time() < end:
            assert await served.unary("EchoNow")(b"%d" % number, wait_for_ready=True) == b"%d" % number
            number += 1
        assert number > 50


def credentials(name: str | None) -> grpc.ChannelCredentials:
    authority = (CERTIFICATES / "ca.pem").read_bytes()
    if name is None:
        return grpc.ssl_channel_credentials(authority)
    key, chain = ((CERTIFICATES / f"{name}.{kind}").read_bytes() for kind in ("key", "pem"))
    return grpc.ssl_channel_credentials(authority, key, chain)


async def identity(transport: str, tls: TlsFiles, name: str | None) -> bytes:
    server = make(transport, ServerOptions(reuse_port=False, tls=tls))
    register(Behaviour(), server)
    await server.start()
    try:
        async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials(name)) as channel:
            large = b"x" * 1_000_000
            assert await channel.unary_unary(path("EchoNow"), None, None)(large, timeout=5) == large
            names: bytes = await channel.unary_unary(path("Identity"), None, None)(b"", timeout=5)
            return names
    finally:
        await server.stop(0)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_tls(transport: str) -> None:
    assert await identity(transport, TLS, None) == b"ssl"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_mutual_tls_tells_who_calls(transport: str) -> None:
    assert await identity(transport, MUTUAL_TLS, "client") == b"ssl|batch.example|spiffe://example/batch"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", [None, "stranger", "expired"])
async def test_mutual_tls_refuses_everybody_else(transport: str, name: str | None) -> None:
    error = await refused(identity(transport, MUTUAL_TLS, name))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_plain_text_on_a_tls_port_is_closed() -> None:
    server = make("ngh2", ServerOptions(reuse_port=False, tls=TLS, handshake_timeout_s=0.3))
    await server.start()
    try:
        async with RawClient(server.port) as client:
            await client.until_closed(limit_s=3)
    finally:
        await server.stop(0)


async def test_certificates_that_do_not_exist_are_named(tmp_path: Path) -> None:
    server = make("ngh2", ServerOptions(reuse_port=False, tls=TlsFiles(tmp_path / "no.pem", tmp_path / "no.key")))
    with pytest.raises(InvalidArgument, match=r"no\.pem' cannot be read: No such file"):
        await server.start()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_port_can_be_shared_and_a_taken_one_is_refused(transport: str) -> None:
    async with serving(transport, ServerOptions(reuse_port=True)) as first:
        async with serving(transport, ServerOptions(port=first.server.port, reuse_port=True)) as second:
            assert await second.unary("EchoNow")(b"x") == b"x"
        alone = make(transport, ServerOptions(port=first.server.port, reuse_port=False))
        with pytest.raises((OSError, RuntimeError)):
            await alone.start()
        await alone.stop(0)


async def test_all_is_released(fast: Served) -> None:
    """After calls of every kind and end, the server holds no call, no deadline, no task and no byte."""
    state = fast.server._state  # type: ignore[attr-defined]
    await fast.unary("Echo")(b"x" * 100_000)
    await fast.unary("EchoNow")(b"x" * 100_000)
    for method in ("Hold", "Sleep"):
        await refused(fast.unary(method)(b"", timeout=0.05))
    call = fast.both_streams("Chat")(None)
    await call.write(b"x" * 100_000)
    await call.read()
    call.cancel()
    await fast.behaviour.until("chat over")
    assert await fast.unary("EchoNow")(b"last") == b"last"
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=5)
    async with asyncio.timeout(5):
        while any(connection.open_calls for connection in state.connections):
            await fast.unary("EchoNow")(b"turn")
    assert state.received.free_bytes == state.received.size_bytes
    assert state.unsent.free_bytes == state.unsent.size_bytes
    assert not any(state.wheel._slots)
    outputs = [connection._output for connection in state.connections]
    assert not any(output.half_open or output.writers for output in outputs)


async def test_a_peer_that_takes_nothing_is_cut_off_at_the_end() -> None:
    """The last bytes wait in the socket's buffer; that must not keep the connection for ever."""
    options = ServerOptions(reuse_port=False, max_connection_age_s=0.3, age_grace_s=0.2, keepalive_timeout_s=0.3)
    async with serving("ngh2", options) as served:
        client = RawClient(served.server.port, settings={4: 2**31 - 1})
        client.h2.set_local_window_size(2**31 - 1)
        async with client:
            await client.request(request_headers("Count"), message(b"-2000 65536"))
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await served.behaviour.until("count over", limit_s=5)
            state = served.server._state  # type: ignore[attr-defined]
            async with asyncio.timeout(5):
                await state.empty.wait()
