import asyncio
import json
import stat
from pathlib import Path

import pytest

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    Internal,
    NotFound,
    ResourceExhausted,
    StaleRevision,
    Unavailable,
    Unimplemented,
    UnknownModel,
)
from gateway.runtime import peers
from gateway.runtime.peers import Aborted, Payload, Peers, PeerServer, ask, worker_socket


async def echo(payload: Payload) -> Payload:
    return payload


async def unknown(_: Payload) -> Payload:
    raise UnknownModel("m")


async def stale(_: Payload) -> Payload:
    raise StaleRevision("m", 3, 4)


async def broken(_: Payload) -> Payload:
    raise RuntimeError("/etc/secret")


async def never(_: Payload) -> Payload:
    await asyncio.Event().wait()
    return {}


async def huge(_: Payload) -> Payload:
    return {"x": "x" * (peers.FRAME_LIMIT_BYTES + 1)}


OPERATIONS = {"echo": echo, "unknown": unknown, "stale": stale, "broken": broken, "never": never, "huge": huge}


async def test_an_answer_is_what_the_operation_returned(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with PeerServer(path, OPERATIONS):
        payload: Payload = {"text": "ü" * 100_000, "n": [1, None, {"a": 1.5}]}
        assert await ask(path, "echo", payload) == payload
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


@pytest.mark.parametrize(
    ("operation", "kind", "text"),
    [
        ("unknown", NotFound, "unknown model"),
        ("stale", Aborted, "at revision 4, not 3"),
        ("absent", Unimplemented, "absent"),
        ("huge", ResourceExhausted, "limit"),
    ],
)
async def test_errors_cross_with_their_code_and_text(
    tmp_path: Path, operation: str, kind: type[GatewayError], text: str
) -> None:
    path = tmp_path / "a.sock"
    async with PeerServer(path, OPERATIONS):
        with pytest.raises(kind, match=text):
            await ask(path, operation, {})


async def test_a_bug_tells_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with PeerServer(path, OPERATIONS):
        with pytest.raises(GatewayError) as raised:
            await ask(path, "broken", {})
    assert raised.value.code is Internal.code
    assert "secret" not in str(raised.value)


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"a\.sock"):
        await ask(tmp_path / "a.sock", "echo", {})


async def test_a_peer_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with PeerServer(path, OPERATIONS):
        with pytest.raises(DeadlineExceeded):
            await ask(path, "never", {}, timeout_s=0.05)
        assert await ask(path, "echo", {}) == {}


async def test_a_peer_that_goes_away_meanwhile_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    begun = asyncio.Event()

    async def begin(_: Payload) -> Payload:
        begun.set()
        return await never({})

    server = PeerServer(path, {"begin": begin})
    await server.start()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(_error_of(path, "begin"))
        await begun.wait()
        await server.close()
    assert isinstance(asking.result(), Unavailable)


async def _error_of(path: Path, operation: str) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        await ask(path, operation, {})
    return raised.value


@pytest.mark.parametrize("frame", [b"\xff\xff\xff\xff{}", b"\0\0\0\x02[]", b"\0\0\0\x03not", b"\0\0"])
async def test_what_is_no_frame_ends_the_connection_and_nothing_else(tmp_path: Path, frame: bytes) -> None:
    path = tmp_path / "a.sock"
    async with PeerServer(path, OPERATIONS):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(frame)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert await ask(path, "echo", {}) == {}


async def test_a_question_without_its_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with PeerServer(path, OPERATIONS):
        reader, writer = await asyncio.open_unix_connection(path)
        body = json.dumps({"operation": 7}).encode()
        writer.write(len(body).to_bytes(4, "big") + body)
        answer = json.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")))
        writer.close()
    assert answer["error"]["code"] == 3


async def test_a_question_over_the_limit_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted):
        await ask(tmp_path / "a.sock", "echo", {"x": "x" * (peers.FRAME_LIMIT_BYTES + 1)})


async def test_all_slots_answer_or_say_why_not(tmp_path: Path) -> None:
    group = Peers(tmp_path, own_slot=0, slots=3)
    async with PeerServer(worker_socket(tmp_path, 0), OPERATIONS), PeerServer(worker_socket(tmp_path, 2), OPERATIONS):
        answers = await group.ask_all("echo", {"a": 1})
        assert answers[0] == answers[2] == {"a": 1}
        assert isinstance(answers[1], Unavailable)
        assert set(await group.ask_all("echo", {}, own=False)) == {1, 2}


async def test_a_successor_takes_the_path_over_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"

    async def second(_: Payload) -> Payload:
        return {"who": "second"}

    old = PeerServer(path, OPERATIONS)
    await old.start()
    async with PeerServer(tmp_path / "other.sock", {}):
        staged = PeerServer(path, {"echo": second})
        await staged.start()
        await old.close()
        assert await ask(path, "echo", {}) == {"who": "second"}
        await staged.close()
    assert not path.exists()
