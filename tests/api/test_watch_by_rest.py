"""Watch as server-sent events at the operators' port."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest

from gateway.api.observations import MAX_WATCHERS
from gateway.pb import control_pb2 as pb
from gateway.runtime.control_bridge import FOLLOW
from gateway.runtime.peers import Payload, PeerGone, PeerServer, follow
from tests.api.asked import Asked, asked
from tests.api.operated import BY, WAIT, Operated
from tests.api.routes import ab, blue_green

pytestmark = pytest.mark.asyncio(loop_scope="session")
DEADLINE_S = 10.0


class Told(NamedTuple):
    """An event; a comment has no kind."""

    kind: str
    id: str
    data: Any


class Following:
    """The events of one answer."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._text = b""

    async def next(self) -> Told:
        """Raises: IncompleteReadError at the end."""
        async with asyncio.timeout(DEADLINE_S):
            while b"\n\n" not in self._text:
                size = int(await self._reader.readline(), 16)
                self._text += (await self._reader.readexactly(size + 2))[:-2]
                if not size:
                    raise asyncio.IncompleteReadError(b"", None)
        block, _, self._text = self._text.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        return Told(fields.get("event", ""), fields.get("id", ""), json.loads(fields.get("data", "null")))

    async def end(self) -> None:
        """Reads what is left."""
        try:
            while True:
                await self.next()
        except asyncio.IncompleteReadError:
            return

    async def until(self, kind: str) -> list[Told]:
        events = [await self.next()]
        while events[-1].kind != kind:
            events.append(await self.next())
        return events


@asynccontextmanager
async def watching(api: Asked, query: str = "", headers: Mapping[str, str] | None = None) -> AsyncIterator[Following]:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        lines = [f"GET /api/v1/watch{query} HTTP/1.1", f"Host: 127.0.0.1:{api.port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200")
        assert "content-type: text/event-stream" in head
        yield Following(reader)
    finally:
        writer.close()


async def test_workers_first_then_changes_and_on_from_the_last_that_was_seen(tmp_path: Path, op: Operated) -> None:
    async with asked(tmp_path, op.service) as api:
        async with watching(api) as events:
            start = await events.until("settled")
            assert [(one.kind, one.data["worker"]["worker"]["id"]) for one in start[:-1]] == [("worker", "w0")]
            revision = await op.apply(blue_green())
            [*_, applied] = await events.until("committed")
        assert (applied.id, applied.data["committed"]["operation"]) == (str(revision), "apply")
        assert applied.data["committed"]["document"] == json.loads(blue_green().to_json())
        await op.stub.Flip(pb.FlipRequest(model="affine", change=BY, wait=WAIT))
        for query, headers in (("", {"Last-Event-ID": applied.id}), (f"?after_revision={revision}", {})):
            async with watching(api, query, headers) as events:
                seen = await events.until("settled")
                seen += [] if any(one.kind == "committed" for one in seen) else await events.until("committed")
                changes = [one.data["committed"]["operation"] for one in seen if one.kind == "committed"]
                assert changes == ["flip"]


async def test_of_one_model_and_a_backlog(tmp_path: Path, op: Operated) -> None:
    await op.apply(ab())
    async with asked(tmp_path, op.service) as api:
        async with watching(api, "?model=affine&backlog=1") as events:
            assert [one.data["committed"]["model"] for one in await events.until("committed")] == ["affine"]
        async with watching(api, "?model=other&backlog=1") as events:
            assert "committed" not in {one.kind for one in await events.until("settled")}


@pytest.mark.parametrize(
    ("query", "headers", "says"),
    [
        ("?backlog=1001", {}, "allowed: 0 to 1000"),
        ("?modell=m", {}, "unknown field 'modell'"),
        ("", {"last-event-id": "x"}, "Last-Event-ID is 'x'"),
    ],
)
async def test_a_refusal_comes_before_the_stream(
    tmp_path: Path, op: Operated, query: str, headers: Mapping[str, str], says: str
) -> None:
    async with asked(tmp_path, op.service) as api:
        status, _, told = await api.ask("GET", f"/api/v1/watch{query}", headers=headers)
        assert (status, says in told["error"]) == (400, True)


async def test_who_has_gone_leaves_his_place_and_one_too_many_is_refused(tmp_path: Path, op: Operated) -> None:
    async with asked(tmp_path, op.service, quiet_s=0.05) as api:
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(watching(api)) for _ in range(MAX_WATCHERS)]
            for one in held:
                await one.until("settled")
            status, _, told = await api.ask("GET", "/api/v1/watch")
            assert (status, f"the limit is {MAX_WATCHERS}" in told["error"]) == (503, True)
            assert (await held[0].until(""))[-1] == Told("", "", None)  # a comment, while nothing happens
        async with asyncio.timeout(DEADLINE_S):
            while not await watched(op):
                pass
        assert (await api.ask("HEAD", "/api/v1/watch"))[0] == 200


async def watched(op: Operated) -> bool:
    """Whether there is a place for one who watches."""
    call = op.stub.Watch(pb.WatchRequest())
    try:
        return isinstance(await call.read(), pb.Event)
    except grpc.aio.AioRpcError:
        return False
    finally:
        call.cancel()


async def test_it_ends_with_the_port(tmp_path: Path, op: Operated) -> None:
    async with AsyncExitStack() as stack:
        async with asked(tmp_path, op.service) as api:
            events = await stack.enter_async_context(watching(api))
            await events.until("settled")
        await events.end()


async def test_a_peer_that_ends_fails_or_dies_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "peer.sock"

    async def two(payload: Payload) -> AsyncGenerator[Payload, None]:
        for number in range(2):
            yield {"number": number}
        if payload.get("broken"):
            raise RuntimeError("/etc/secret")
        if payload.get("waits"):
            await asyncio.Event().wait()

    async with PeerServer(path, {}, {FOLLOW: two}):
        assert [one async for one in follow(path, FOLLOW, {})] == [{"number": 0}, {"number": 1}]
        with pytest.raises(Exception, match="internal error"):
            [one async for one in follow(path, FOLLOW, {"broken": True})]
        last = follow(path, FOLLOW, {"waits": True})
        assert [await anext(last), await anext(last)] == [{"number": 0}, {"number": 1}]
    with pytest.raises(PeerGone):
        await anext(last)
