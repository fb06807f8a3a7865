"""Pools whose threads are there before the work."""

import subprocess
import sys
import threading

import pytest

from gateway.threads import DaemonThread, started_threads

# As a user whom the kernel lets start so few more threads; root is asked by no such limit.
_LIMITED = """
import os, resource, sys
from gateway.errors import Unavailable
from gateway.threads import started_threads
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
one = started_threads(1, "one")
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    started_threads(2, "many")
except Unavailable as error:
    print(error)
assert one.submit(int, "7").result() == 7  # what was started goes on
"""


# A user may not raise the priority of what has a lower one already; a sandbox may forbid any change.
_WITHOUT_PRIORITY = """
import os
from gateway.serving.mirror_resources import _be_nice
from gateway.threads import started_threads
os.nice(19)
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
print(started_threads(1, "mirror", _be_nice).submit(os.nice, 0).result())
"""


def since(before: set[threading.Thread]) -> set[threading.Thread]:
    """The threads that have started; some of those before may end meanwhile."""
    return set(threading.enumerate()) - before


def _forbidden() -> None:
    raise PermissionError("forbidden")


@pytest.mark.parametrize("count", [1, 3, 16])
def test_all_threads_are_there_and_work_starts_none(count: int) -> None:
    before = set(threading.enumerate())
    pool = started_threads(count, "test")
    assert len(since(before)) == count
    assert sorted(pool.map(int, map(str, range(50)))) == list(range(50))
    assert len(since(before)) == count
    pool.shutdown()
    assert not since(before)


def test_each_thread_is_initialized() -> None:
    seen: list[str] = []
    started_threads(3, "named", lambda: seen.append(threading.current_thread().name)).shutdown()
    assert len(seen) == 3
    assert all(name.startswith("named") for name in seen)


@pytest.mark.parametrize("count", [1, 3])
def test_a_thread_that_fails_at_its_start_is_an_error_and_no_wait_for_ever(count: int) -> None:
    before = set(threading.enumerate())
    with pytest.raises(PermissionError, match="forbidden"):
        started_threads(count, "failing", _forbidden)
    for thread in threading.enumerate():
        if thread.name.startswith("failing"):
            thread.join(10)
    assert not since(before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no thread has a priority of its own")
def test_a_mirror_runs_where_its_priority_may_not_be_set() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_PRIORITY], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "19\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_NPROC counts threads on Linux")
def test_a_system_that_starts_no_more_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "the system starts no more threads (of 2 for 'many'): raise the limit of processes" in done.stdout


def test_a_daemon_thread_does_its_work_in_order_and_tells_how_it_ended() -> None:
    thread, goes_on, begun = DaemonThread("test"), threading.Event(), threading.Event()

    def wait() -> str:
        begun.set()
        goes_on.wait(20)
        return threading.current_thread().name

    first, failed, last = thread.submit(wait), thread.submit(int, "x"), thread.submit(int, "7")
    assert begun.wait(20)
    thread.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="shut down"):
        thread.submit(int)
    goes_on.set()
    assert (first.result(20), last.result(20)) == ("test", 7)
    assert isinstance(failed.exception(20), ValueError)
    thread.shutdown()


def test_a_daemon_thread_gives_up_what_it_has_not_begun() -> None:
    thread, goes_on, begun = DaemonThread("test"), threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return goes_on.wait(20)

    first = thread.submit(wait)
    assert begun.wait(20)
    waiting = thread.submit(int)
    thread.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    goes_on.set()
    assert first.result(20)
    thread.shutdown()


def test_a_process_ends_whatever_a_daemon_thread_waits_for() -> None:
    code = (
        "from threading import Event; from gateway.threads import DaemonThread; "
        "thread = DaemonThread('look'); begun = Event(); "
        "thread.submit(lambda: (begun.set(), Event().wait())); begun.wait(); thread.shutdown(wait=False)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
