"""What a process that tries a model cannot start: each test has a process of its own, for a ban is for good."""

import os
import subprocess
import sys

import pytest

from gateway.serving import process_ban

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in process_ban._MACHINES, reason="no such filter on this machine"
)

FORKS = {
    "fork": "os.fork()",
    "forkpty": "os.forkpty()",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "subprocess": "subprocess.Popen(['/bin/true'])",
    "system": "raise PermissionError if os.system('/bin/true') else 0",
    "exec": "os.execv('/bin/true', ['true'])",
    "fexec": "os.execve(os.open('/bin/true', os.O_RDONLY), ['true'], {})",
    "in a thread that was there": "asked.set(); answer = answers.get(); raise PermissionError if answer else 0",
    "in a new thread": "pool.submit(os.fork).result()",
}

PROGRAM = """
import os, queue, subprocess, threading
from concurrent.futures import ThreadPoolExecutor
from gateway.serving.process_ban import ban_processes

asked, answers = threading.Event(), queue.Queue()

def early():
    asked.wait()
    try:
        answers.put(os.fork())
    except PermissionError as error:
        answers.put(error)

threading.Thread(target=early, daemon=True).start()
assert ban_processes() and ban_processes()
pool = ThreadPoolExecutor(1)
pool.submit(str).result()
try:
    {deed}
except PermissionError:
    print("forbidden")
"""


def output_of(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("deed", FORKS.values(), ids=FORKS.keys())
def test_no_way_to_start_a_process_is_open(deed: str) -> None:
    assert output_of(PROGRAM.format(deed=deed)) == "forbidden"


THREADS = """
import threading
from pathlib import Path
from gateway.serving.probe_child import set_limits
from gateway.serving.probe_request import ProbeRequest
from loaders.loader import LocalVersion

threading.stack_size(8 << 20)
set_limits(ProbeRequest(LocalVersion(Path(), "", ()), memory_bytes=256 << 20))
end, started = threading.Event(), 0
try:
    while started < 10_000:
        threading.Thread(target=end.wait, daemon=True).start()
        started += 1
except RuntimeError as error:
    print(error, started)
end.set()
"""


def test_threads_are_as_many_as_their_stacks_find_room() -> None:
    message, _, started = output_of(THREADS).rpartition(" ")
    assert message == "can't start new thread"
    assert 1 <= int(started) <= 32  # of 8 MiB, in 256 that the allocator shares
