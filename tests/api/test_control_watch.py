"""News, the audit and the settling of a store, over a running server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from gateway.api.observations import MAX_WATCHERS
from gateway.pb import control_pb2 as pb
from tests.api.operated import BY, Operated, operated
from tests.api.routes import ab, blue_green
from tests.routing.live import until as holds

pytestmark = pytest.mark.asyncio(loop_scope="session")
DEADLINE_S = 10.0
Stream = grpc.aio.UnaryStreamCall[pb.WatchRequest, pb.Event]


async def following(stream: Stream) -> pb.Event:
    async with asyncio.timeout(DEADLINE_S):
        event = await stream.read()
    assert isinstance(event, pb.Event), "the stream ended"
    return event


async def read_to_the_end(stream: Stream) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while isinstance(await stream.read(), pb.Event | pb.LogRow):
            pass


async def until(stream: Stream, kind: str) -> list[pb.Event]:
    """Events up to the first of that kind."""
    events = [await following(stream)]
    while events[-1].WhichOneof("event") != kind:
        events.append(await following(stream))
    return events


async def test_workers_first_then_changes_as_they_are_committed(op: Operated) -> None:
    stream = op.stub.Watch(pb.WatchRequest())
    start = await until(stream, "settled")
    assert [event.worker.worker.id for event in start[:-1]] == ["w0"]
    revision = await op.apply(blue_green())
    await op.stub.Flip(pb.FlipRequest(model="affine", change=BY))
    events: list[pb.Event] = []
    while len([event for event in events if event.HasField("committed")]) < 2:
        events.append(await following(stream))
    told = [event.committed for event in events if event.HasField("committed")]
    assert [(entry.revision, entry.operation, entry.model) for entry in told] == [
        (revision, "apply", "affine"),
        (revision + 1, "flip", "affine"),
    ]
    assert told[0].document_json == blue_green().to_json()
    stream.cancel()


async def test_a_backlog_comes_before_the_news(op: Operated) -> None:
    first = await op.apply(ab(90, 10))
    second = await op.apply(ab(80, 20))
    stream = op.stub.Watch(pb.WatchRequest(backlog=2, model="affine"))
    start = await until(stream, "settled")
    assert [event.committed.revision for event in start if event.HasField("committed")] == [first, second]
    stream.cancel()


async def test_who_goes_on_after_a_revision_misses_nothing(op: Operated) -> None:
    seen = await op.apply(ab(90, 10))
    missed = [await op.apply(ab(100 - share, share)) for share in (20, 30, 40)]
    stream = op.stub.Watch(pb.WatchRequest(after_revision=seen))
    told: list[int] = []
    while len(told) < 3:
        event = await following(stream)
        told += [event.committed.revision] if event.HasField("committed") else []
    assert told == missed
    stream.cancel()


async def test_streams_end_when_the_worker_leaves(own: Operated) -> None:
    news = own.stub.Watch(pb.WatchRequest())
    await until(news, "settled")
    rows = own.stub.TailLog(pb.TailLogRequest(follow=True))
    own.service.drain()
    for stream in (news, rows):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_to_the_end(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (await own.stub.Workers(pb.WorkersRequest())).workers


async def test_there_is_a_limit_and_who_leaves_makes_room(op: Operated) -> None:
    streams = [op.stub.Watch(pb.WatchRequest()) for _ in range(MAX_WATCHERS)]
    for stream in streams:
        await until(stream, "settled")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await op.stub.Watch(pb.WatchRequest()).read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (await op.stub.Workers(pb.WorkersRequest())).workers
    for stream in streams:
        stream.cancel()
    async with asyncio.timeout(DEADLINE_S):
        while True:
            again = op.stub.Watch(pb.WatchRequest())
            try:
                await again.read()
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)
    again.cancel()


async def test_the_audit_has_all_models_newest_first(op: Operated) -> None:
    revision = await op.apply(blue_green())
    await op.stub.Flip(pb.FlipRequest(model="affine", change=pb.Change(actor="ann", reason="it is warm", source="cli")))
    answer = await op.stub.Audit(pb.AuditRequest(limit=2))
    assert [(e.revision, e.model, e.operation, e.actor, e.reason, e.source) for e in answer.entries] == [
        (revision + 1, "affine", "flip", "ann", "it is warm", "cli"),
        (revision, "affine", "apply", "tester", "test", "cli"),
    ]
    assert answer.entries[0].committed_at_us > answer.entries[1].committed_at_us
    assert not answer.entries[0].document_json
    only = await op.stub.Audit(pb.AuditRequest(actor="ann"))
    assert {entry.actor for entry in only.entries} == {"ann"}
    assert not (await op.stub.Audit(pb.AuditRequest(model="other"))).entries
    with pytest.raises(grpc.aio.AioRpcError, match="limit: 1001"):
        await op.stub.Audit(pb.AuditRequest(limit=1001))


async def test_the_audit_reads_on_over_pages(op: Operated) -> None:
    await op.apply(blue_green())
    for _ in range(210):
        await op.stub.Flip(pb.FlipRequest(model="affine", change=BY, wait=pb.WaitFor()))
    everything = await op.stub.Audit(pb.AuditRequest(limit=1000))
    revisions = [entry.revision for entry in everything.entries if entry.revision]  # others change no route
    assert revisions == list(range(revisions[0], 0, -1))


async def test_the_chain_is_read_in_parts_with_the_routes_at_its_end(op: Operated) -> None:
    revision = await op.apply(blue_green())
    head = (await op.stub.AuditChain(pb.AuditChainRequest(limit=1))).head_sequence
    last = await op.stub.AuditChain(pb.AuditChainRequest(after=head - 1, limit=2))
    [entry] = last.entries
    assert (entry.sequence, entry.revision, entry.hash) == (head, revision, last.head_hash)
    assert [(r.model, r.revision, r.document) for r in last.routes] == [("affine", revision, entry.document)]
    part = await op.stub.AuditChain(pb.AuditChainRequest(after=head - 1, limit=1))
    assert (list(part.entries), list(part.routes)) == ([entry], [])
    for refused in (pb.AuditChainRequest(limit=1001), pb.AuditChainRequest(after=-1)):
        with pytest.raises(grpc.aio.AioRpcError, match="limit"):
            await op.stub.AuditChain(refused)


async def test_a_sound_store_needs_no_healing(op: Operated) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await op.stub.Heal(pb.HealRequest(change=BY))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest_asyncio.fixture(loop_scope="session")
async def own(tmp_path: Path, probes: Path) -> AsyncIterator[Operated]:
    async with operated(tmp_path, probes) as made:
        yield made


async def test_a_store_that_lost_everything_and_was_written_again_is_healed(own: Operated) -> None:
    await own.apply(blue_green())
    stream = own.stub.Watch(pb.WatchRequest())
    await until(stream, "settled")
    own.valkey.kill()
    assert (await until(stream, "store_away"))[-1].store_away
    own.valkey.wipe()
    own.valkey.start()
    await until(stream, "settled")
    # Somebody else writes to the empty store before this worker has noticed.
    await own.store.link.call("SET", own.store.keys.epoch, "another")
    await own.store.link.call("SET", own.store.keys.revision, "1")
    with pytest.raises(grpc.aio.AioRpcError, match="heal it first"):
        await own.apply(ab())
    healed = await own.stub.Heal(pb.HealRequest(change=BY))
    assert healed.revision > 1
    assert await own.document() == blue_green().to_json()
    await own.apply(ab())
    audit = await own.stub.Audit(pb.AuditRequest())
    assert [entry.operation for entry in audit.entries] == ["apply", "restore"]
    stream.cancel()


async def test_a_store_that_is_right_is_accepted(own: Operated) -> None:
    await own.apply(blue_green())
    await own.store.link.call("SET", own.store.keys.epoch, "another")
    accepted = await own.stub.Heal(pb.HealRequest(accept_store=True, change=BY))
    assert (await own.store.state()).epoch == accepted.epoch
    await holds(lambda: own.feed.snapshot.epoch == accepted.epoch)
    assert await own.document() == blue_green().to_json()
    await own.apply(ab())
