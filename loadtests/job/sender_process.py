"""The process of a sender: an order and a start on standard input, what was counted on standard output.

Lines of JSON: {"ready": [notes]} or {"failed": text, "usage": true}; after "go <seconds since the epoch>"
{"tally": ...}, and at last {"done": true}.

The end of standard input ends it: nobody is left who would hear.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec
import uvloop

from gateway.errors import InvalidArgument
from loadtests.job.sender import Sender, SenderOrder
from loadtests.job.target import TargetFailed


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who gave the order, and who ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(said: dict[str, Any]) -> None:
        answers.write(json.dumps(said, separators=(",", ":")) + "\n")
        answers.flush()

    line = sys.stdin.readline()
    if not line:
        return 1
    order = msgspec.json.decode(line, type=SenderOrder)
    return uvloop.run(_work(order, say))


async def _work(order: SenderOrder, say: Callable[[dict[str, Any]], None]) -> int:
    sender, stop = Sender(order), asyncio.Event()
    try:
        await sender.prepare()
        say({"ready": sender.notes})
        loop = asyncio.get_running_loop()
        start: asyncio.Future[float] = loop.create_future()
        # Not by asyncio.to_thread: its pool is waited for at the end, and this thread ends with standard input.
        threading.Thread(target=_listen, args=(loop, start, stop), daemon=True).start()
        start_s = await start - time.time() + monotonic()
        if not stop.is_set():
            await sender.run(start_s, lambda tally: say({"tally": tally.as_json()}), stop)
    except (TargetFailed, InvalidArgument) as error:
        say({"failed": str(error), "usage": isinstance(error, InvalidArgument)})
        return 1
    finally:
        await sender.close()
    say({"done": True})
    return 0


def _listen(loop: asyncio.AbstractEventLoop, start: "asyncio.Future[float]", stop: asyncio.Event) -> None:
    """Passes on the start, and the end of standard input."""

    def go(epoch_s: float) -> None:
        if not start.done():
            start.set_result(epoch_s)

    for line in sys.stdin:
        word, _, rest = line.partition(" ")
        if word == "go":
            loop.call_soon_threadsafe(go, float(rest))
    try:
        loop.call_soon_threadsafe(stop.set)
        loop.call_soon_threadsafe(go, 0.0)
    except RuntimeError:
        pass  # the loop has ended: the work was done before


if __name__ == "__main__":
    sys.exit(main())
