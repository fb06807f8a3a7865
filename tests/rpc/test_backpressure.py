"""What clients send without end and leave unread is bounded, and told to them; the others are served."""

import asyncio
from contextlib import suppress

import grpc
import ngh2
import pytest

from gateway.errors import ResourceExhausted
from gateway.rpc.server import ServerOptions
from gateway.serving.admission import Admission
from tests.rpc.raw import PING, RawClient, message, raw_frame, request_headers
from tests.rpc.refusals import EXHAUSTED, MIB, budget, ended, told_never_to_come, told_to_come_later
from tests.rpc.serving import TRANSPORTS, Served, refused, serving

INITIAL_WINDOW_SIZE = 4


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_answers_that_are_not_read_are_bounded(transport: str) -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=8 * MIB, max_receive_bytes=MIB, max_send_bytes=MIB)
    async with serving(transport, options) as served:
        async with RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0}) as client:
            await client.until(lambda self: self.events)
            body = message(b"x" * 900_000)
            streams = [await client.request(request_headers("EchoLater"), body) for _ in range(30)]
            await client.until(lambda self: len(ended(self)) >= 10)  # refused: the others wait for their window
            unsent = budget(served, "unsent")
            assert unsent.free_bytes >= 0
            for stream_id in ended(client):
                assert told_to_come_later(client.seen(stream_id)[0])
            assert len(ended(client)) < len(streams)
            # Others are served, and do not wait.
            assert await served.unary("EchoNow")(b"small", timeout=5) == b"small"
        async with asyncio.timeout(10):
            while unsent.free_bytes < unsent.size_bytes:
                await served.unary("EchoNow")(b"turn")
        assert await served.unary("EchoNow")(b"x" * 900_000, timeout=5) == b"x" * 900_000


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_answers_that_are_not_read_leave_less_room_for_requests(transport: str) -> None:
    admission = Admission(max_requests=100, max_bytes=MIB)
    options = ServerOptions(reuse_port=False, on_unread=admission.count_unread)
    async with serving(transport, options) as served:
        async with RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0}) as client:
            await client.until(lambda self: self.events)
            await client.request(request_headers("EchoNow"), message(b"x" * 900_000))
            while admission.bytes < 900_000:  # not answered yet
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await client.step()
            with pytest.raises(ResourceExhausted, match=r"9\d+ of them in answers that clients have not read"):
                admission.take(200_000)
            admission.take(100_000)  # there is room for smaller ones
            admission.give(100_000)
        async with asyncio.timeout(10):
            while admission.bytes:
                await served.unary("EchoNow")(b"turn")
        admission.take(MIB)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_connection_with_unread_answers_gets_no_more_requests_served(transport: str) -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=8 * MIB, max_receive_bytes=MIB, max_send_bytes=MIB)
    async with serving(transport, options) as served:
        client = RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0})
        async with client:
            await client.until(lambda self: self.events)
            unsent = budget(served, "unsent")
            for number in range(1, 7):
                await client.request(request_headers("EchoNow"), message(b"x" * 1_000_000))
                while unsent.size_bytes - unsent.free_bytes < number * 1_000_000:  # not answered yet
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.02):
                            await client.step()
            fields, _ = await client.answer(await client.request(request_headers("Hold"), message(b"")))
            assert told_to_come_later(fields)
            assert fields[b"grpc-message"] == b"earlier answers on this connection are not read"
            assert served.behaviour.events["hold"] == 0
            # When it reads, it is served again.
            client.h2.update_settings({INITIAL_WINDOW_SIZE: 2 * MIB})
            await client.send()
            await client.until(lambda self: len(ended(self)) == 7)
            fields, _ = await client.answer(await client.request(request_headers("EchoNow"), message(b"x")))
            assert fields[b"grpc-status"] == b"0"


async def test_small_answers_that_are_not_read_count() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=8 * MIB, max_concurrent_streams=1000)
    async with serving("ngh2", options) as served:
        client = RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0})
        async with client:
            await client.until(lambda self: self.events)
            for _ in range(510):
                await client.request(request_headers("EchoNow"), message(b"x" * 16_000))
            await client.until(lambda self: not self.h2.queued_body_size())
            fields, _ = await client.answer(await client.request(request_headers("EchoNow"), message(b"x")))
            assert fields[b"grpc-status"] == EXHAUSTED
            unsent = budget(served, "unsent")
            assert 7 * MIB < unsent.size_bytes - unsent.free_bytes <= 8 * MIB
            assert await served.unary("EchoNow")(b"small", timeout=5) == b"small"


async def test_pings_beside_a_large_download_are_welcome(fast: Served) -> None:
    """gRPC's clients measure the bandwidth with a ping for each stretch of data that they receive."""
    async with RawClient(fast.server.port, settings={INITIAL_WINDOW_SIZE: 65_535}) as client:
        await client.until(lambda self: self.events)
        body = message(b"x" * 3_000_000)
        streams = [await client.request(request_headers("EchoNow"), body) for _ in range(3)]
        pings = 0
        while len(ended(client)) < len(streams):
            before = len(client.events)
            await client.step()
            assert not client.closed
            assert client.went_away() is None
            if any(isinstance(event, ngh2.DataReceived) for event in client.events[before:]):
                client.h2.ping(b"bdp ping")
                await client.send()
                pings += 1
        for stream_id in streams:
            assert client.seen(stream_id)[1] == body
        assert pings > 20


async def test_pings_without_data_are_not_forgiven_by_an_unread_answer(fast: Served) -> None:
    async with RawClient(fast.server.port, settings={INITIAL_WINDOW_SIZE: 0}) as client:
        await client.until(lambda self: self.events)
        await client.request(request_headers("EchoNow"), message(b"x" * 100_000))
        for _ in range(6):
            await client.send_raw(raw_frame(PING, 0, b"12345678"))
            await client.step()
        await client.until(lambda self: self.went_away() is not None)
        assert client.went_away() == ngh2.ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("fields", [1000, 10_000])
async def test_thousands_of_metadata_fields_are_refused_alone(transport: str, fields: int) -> None:
    """A proxy has the calls of many clients on one connection: those of the others go on."""
    async with serving(transport) as served:
        client = RawClient(served.server.port, max_send_header_block_length=1 << 24)
        async with client:
            held = await client.request(request_headers("Hold"), message(b""))
            await served.behaviour.until("hold")
            for distinct in (True, False):
                more = [(b"x-%d" % number if distinct else b"x-same", b"v") for number in range(fields)]
                bad = await client.request(request_headers("EchoNow", *more), message(b"x"))
                seen, _ = await client.answer(bad)
                assert seen[b"grpc-status"] == EXHAUSTED, distinct
            served.behaviour.held[0].answer(b"done")
            seen, body = await client.answer(held)
            assert (seen[b"grpc-status"], body) == (b"0", message(b"done"))
            assert client.went_away() is None


async def test_many_empty_fields_are_refused(fast: Served) -> None:
    async with RawClient(fast.server.port) as client:
        more = [(b"x%d" % number, b"") for number in range(257)]
        for method in ("EchoNow", "Chat", "Missing"):
            fields, _ = await client.answer(await client.request(request_headers(method, *more), message(b"x")))
            assert told_never_to_come(fields)


async def test_refused_answers_are_told_to_grpcios_client() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=MIB, max_send_bytes=2 * MIB)
    async with serving("grpcio", options) as served:
        error = await refused(served.unary("Echo")(b"x" * (MIB + 1), timeout=5))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "never fits" in (error.details() or "")
        assert "-1" in str(error.trailing_metadata())


async def test_who_leaves_answers_unread_loses_its_connection_when_room_runs_out() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=4 * MIB, max_send_bytes=MIB, stall_timeout_s=0.1)
    async with serving("ngh2", options) as served:
        hoarders = [RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0}) for _ in range(4)]
        async with hoarders[0], hoarders[1], hoarders[2], hoarders[3]:
            for hoarder in hoarders:
                await hoarder.request(request_headers("EchoNow"), message(b"x" * 1_000_000))
                await hoarder.until(lambda self: not self.h2.queued_body_size())
            waiting = [asyncio.ensure_future(hoarder.until_closed()) for hoarder in hoarders]
            _, open_still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in open_still:
                one.cancel()
            await asyncio.gather(*open_still, return_exceptions=True)
            assert served.server.counts()["broken"] == 1
            assert await served.unary("EchoNow")(b"x" * 1_000_000, timeout=5) == b"x" * 1_000_000


async def test_an_unread_answer_may_wait_while_there_is_room() -> None:
    options = ServerOptions(reuse_port=False, stall_timeout_s=0.05)
    async with serving("ngh2", options) as served:
        client = RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0})
        async with client:
            stream_id = await client.request(request_headers("EchoNow"), message(b"x" * 1_000_000))
            other = served.unary("Sleep")(b"", timeout=0.5)
            await refused(other)  # ten checks later
            client.h2.update_settings({INITIAL_WINDOW_SIZE: 2 * MIB})
            await client.send()
            assert (await client.answer(stream_id))[1] == message(b"x" * 1_000_000)


async def test_small_messages_of_streams_that_are_not_read_are_bounded() -> None:
    options = ServerOptions(reuse_port=False, max_inflight_bytes=4 * MIB)
    async with serving("ngh2", options) as served:
        client = RawClient(served.server.port, settings={INITIAL_WINDOW_SIZE: 0})
        async with client:
            await client.until(lambda self: self.events)
            for _ in range(60):
                await client.request(request_headers("Count"), message(b"-1000 10000"))
                await client.until(lambda self: not self.h2.queued_body_size())
            # A message that has no room ends its stream.
            await served.behaviour.until("count over", 40)
            unsent = budget(served, "unsent")
            assert 0 <= unsent.free_bytes < MIB
        assert await served.unary("EchoNow")(b"small", timeout=5) == b"small"
