"""All threads of a loop at work on something that hangs."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def taken_threads() -> Iterator[None]:
    """What is given to `asyncio.to_thread` waits for the end of this."""
    ended = threading.Event()
    pool = ThreadPoolExecutor(1)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(pool)
    loop.run_in_executor(None, ended.wait)
    try:
        yield
    finally:
        ended.set()
        loop.set_default_executor(ThreadPoolExecutor())  # other tests may run on the same loop
        pool.shutdown()
