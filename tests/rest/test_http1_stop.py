"""What a stop, a drain and a restart leave to clients of HTTP/1.1."""

import asyncio

from gateway.rest.http1_limits import Http1Limits
from gateway.rpc.server import ServerOptions
from tests.machine_load import as_loaded
from tests.rest.serving import get, post, serving
from tests.routing.live import until


async def test_a_drain_loses_no_request() -> None:
    settle_s = as_loaded(0.1)  # what the late request has to come in
    async with (
        serving(limits=Http1Limits(settle_s=settle_s, linger_s=0.05)) as served,
        served.client() as busy,
        served.client() as idle,
        served.client() as late,
    ):
        for client in (busy, idle, late):
            assert (await client.ask(get("/about"))).status == 200
        busy.send(post("/wait", b"1"))
        await served.endpoints.begun.wait()
        stopping = asyncio.ensure_future(served.server.stop(5))
        await asyncio.sleep(0)
        assert (await late.ask(post("/echo", b"late"))).fields["connection"] == "close"
        assert await idle.ended()
        served.endpoints.released.set()
        answer = await busy.answer()
        assert (answer.status, answer.body, answer.fields["connection"]) == (200, b"1", "close")
        for client in (busy, late):
            assert await client.ended()
        await stopping


async def test_a_request_that_came_while_the_loop_was_busy_is_not_lost_to_a_drain() -> None:
    async with serving(limits=Http1Limits(settle_s=0.0, linger_s=0.05)) as served, served.client() as client:
        assert (await client.ask(get("/about"))).status == 200
        client.send(post("/echo", b"late"))  # which the kernel has, and the server has not read as it drains
        stopping = asyncio.ensure_future(served.server.stop(5))
        answer = await client.answer()
        assert (answer.status, answer.body, answer.fields["connection"]) == (200, b"late", "close")
        assert await client.ended()
        client.writer.close()
        await stopping


async def test_a_stop_without_grace_says_why() -> None:
    async with serving() as served, served.client() as client:
        client.send(post("/wait", b"1"))
        await served.endpoints.begun.wait()
        stopping = asyncio.ensure_future(served.server.stop(0))
        assert (await client.answer()).status == 503
        assert await client.ended()
        client.writer.close()
        await stopping


async def test_a_rolling_restart_loses_no_request() -> None:
    """Two servers share a port, as a worker and its successor do; clients keep their connections as most do."""
    async with serving(ServerOptions()) as old:
        options = ServerOptions(port=old.port)
        async with serving(options) as new:
            stopped = asyncio.Event()
            answered: list[int] = []

            async def use(pause_s: float) -> None:
                while not stopped.is_set():
                    async with old.client() as client:
                        goes_on = True
                        while goes_on and not stopped.is_set():
                            answer = await client.ask(post("/echo", b"x"))
                            answered.append(answer.status)
                            goes_on = "connection" not in answer.fields
                            await asyncio.sleep(pause_s)

            clients = [asyncio.ensure_future(use(pause_s)) for pause_s in (0, 0, 0.001, 0.01, 0.1, 0.3)]
            await until(lambda: len(answered) > 100)
            await old.server.stop(10)
            before = len(answered)
            await until(lambda: len(answered) > before + 100)
            assert new.server.counts()["open"] == len(clients)
            stopped.set()
            await asyncio.gather(*clients)
            assert set(answered) == {200}
