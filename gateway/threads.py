"""Threads that are there before there is work for them, so that work never fails because the system starts no more."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Barrier, Event, Thread
from typing import Any, ParamSpec, TypeVar

from gateway.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


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


class DaemonThread(Executor):
    """One thread, started at once, for work that may hang: the end of the process does not wait for it.

    Order: one thread submits and shuts down.
    """

    def __init__(self, name: str) -> None:
        """Raises: Unavailable, where the system starts no more threads."""
        self._submitted: SimpleQueue[tuple[Future[Any], Callable[[], object]] | None] = SimpleQueue()
        self._is_shut = False
        self._ended = Event()
        started_daemon(self._run, name)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Returns what `fn` will return. Raises: RuntimeError, after `shutdown`."""
        if self._is_shut:
            raise RuntimeError("the thread was shut down")
        future: Future[T] = Future()
        self._submitted.put((future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the thread after all that was submitted; with `cancel_futures` after what it has begun."""
        self._is_shut = True
        with suppress(Empty):
            while cancel_futures:
                submitted = self._submitted.get_nowait()
                if submitted is not None:
                    submitted[0].cancel()
        self._submitted.put(None)
        if wait:
            self._ended.wait()

    def _run(self) -> None:
        while (submitted := self._submitted.get()) is not None:
            _settle(*submitted)
            del submitted  # what it holds goes with it
        self._ended.set()


def _settle(future: Future[Any], call: Callable[[], object]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # the boundary of the thread: whoever waits for it raises it
        future.set_exception(error)
    else:
        future.set_result(result)
