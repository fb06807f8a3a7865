"""Frames that no client would send: whatever they are, the event loop never sees an exception and others are served."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rpc.raw import DATA, HEADERS, PREFACE, SETTINGS, message, raw_frame, request_headers
from tests.rpc.serving import serving


def block(method: str) -> bytes:
    return b"".join(
        b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in request_headers(method)
    )


METHODS = st.sampled_from(["Echo", "EchoNow", "Hold", "Sleep", "Count", "Total", "Chat", "Shout", "Missing"])
STREAMS = st.sampled_from([0, 1, 1, 3, 3, 5, 7, 2])
WILD = st.builds(
    lambda kind, stream, payload, flags: raw_frame(kind, stream, payload, flags=flags),
    st.integers(0, 11),
    STREAMS,
    st.binary(max_size=30),
    st.integers(0, 255),
)
BEGIN = st.builds(
    lambda stream, method, flags: raw_frame(HEADERS, stream, block(method), flags=flags),
    STREAMS,
    METHODS,
    st.sampled_from([4, 4, 4, 5, 0]),
)
BODY = st.builds(
    lambda stream, body, flags: raw_frame(DATA, stream, body, flags=flags),
    STREAMS,
    st.one_of(st.binary(max_size=20), st.binary(max_size=20).map(message)),
    st.sampled_from([0, 1]),
)
RESET = st.builds(lambda stream, code: raw_frame(3, stream, code.to_bytes(4, "big")), STREAMS, st.integers(0, 15))


async def send(frames: list[bytes], *, together: bool) -> list[dict[str, Any]]:
    """What the event loop complained of."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with serving("ngh2") as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        try:
            for part in [b"".join([PREFACE, raw_frame(SETTINGS), *frames])] if together else [PREFACE, *frames]:
                writer.write(part)
                await writer.drain()
            writer.write_eof()
            async with asyncio.timeout(10):
                while await reader.read(65536):
                    pass
        except ConnectionError:
            pass
        finally:
            writer.close()
        assert await served.unary("EchoNow")(b"alive", timeout=5) == b"alive"
    return complaints


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(BEGIN, BODY, BODY, RESET, WILD), min_size=1, max_size=12), st.booleans())
def test_any_frames_are_survived(frames: list[bytes], together: bool) -> None:
    assert asyncio.run(send(frames, together=together)) == []
