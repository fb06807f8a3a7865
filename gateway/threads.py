"""Threads that are there before there is work for them, so that work never fails because the system starts no more."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread

from gateway.errors import Unavailable


def _nothing() -> None:
    """Does what a thread does at its start that needs nothing."""


def started_threads(count: int, name: str, initializer: Callable[[], None] = _nothing) -> ThreadPoolExecutor:
    """Returns a pool whose threads have all started; `submit` starts none, and so cannot fail for want of threads.

    Raises: Unavailable, where the system starts no more threads; what `initializer` raises.
    """
    all_started = Barrier(count + 1)
    failures: list[Exception] = []

    def begin() -> None:
        try:
            initializer()
        except Exception as error:
            failures.append(error)
            all_started.abort()
            raise

    pool = ThreadPoolExecutor(count, thread_name_prefix=name, initializer=begin)
    try:
        for _ in range(count):
            pool.submit(all_started.wait)  # none of them is idle, so each of these starts one
        all_started.wait()
    except RuntimeError as error:  # also of a pool or a barrier that a failure has broken
        all_started.abort()
        pool.shutdown(wait=False, cancel_futures=True)
        if failures:
            raise failures[0] from None
        raise _no_more_threads(count, name) from error
    return pool


def started_daemon(work: Callable[[], None], name: str) -> None:
    """Starts a thread that nobody waits for at the end of the process.

    Raises: Unavailable, where the system starts no more threads.
    """
    try:
        Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:
        raise _no_more_threads(1, name) from error


def _no_more_threads(count: int, name: str) -> Unavailable:
    return Unavailable(
        f"the system starts no more threads (of {count} for {name!r}): raise the limit of processes of this user "
        "(ulimit -u) or control group (pids.max)"
    )
