"""What a child reports, while its supervisor does not read."""

import os
from contextlib import suppress

import msgspec

from gateway.runtime.child import SupervisorLink


async def test_what_found_no_room_is_said_with_the_next_beat() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        link, filled = SupervisorLink(writing), 0
        with suppress(BlockingIOError):
            while True:
                filled += os.write(writing, bytes(4096))
        link.ready()
        link.draining()
        assert len(os.read(reading, filled)) == filled
        link.progress()
        said = msgspec.json.decode(os.read(reading, 4096))
        assert said == {"ready": True, "draining": True, "beat": 0}
    finally:
        os.close(reading)
        os.close(writing)
