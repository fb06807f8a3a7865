"""What a process that tries a model cannot start: each test has a process of its own, for a ban is for good."""

import os
import subprocess
import sys

import pytest

from gateway.serving import process_ban

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in process_ban._MACHINES, reason="no such filter on this machine"
)

DEEDS = {
    "fork": "os.fork()",
    "forkpty": "os.forkpty()",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "subprocess": "subprocess.Popen(['/bin/true'])",
    "system": "raise PermissionError if os.system('/bin/true') else 0",
    "exec": "os.execv('/bin/true', ['true'])",
    "fexec": "os.execve(os.open('/bin/true', os.O_RDONLY), ['true'], {})",
    "kill": "os.kill(os.getppid(), 0)",
    "kill of the group": "os.kill(0, 0)",
    "kill of a thread": "libc(200 if x86 else 130, os.getppid(), 0)",
    "tgkill": "libc(234 if x86 else 131, os.getppid(), os.getppid(), 0)",
    "pidfd_open": "os.pidfd_open(os.getppid())",
    "ptrace": "libc(101 if x86 else 117, 16, os.getppid(), 0, 0)",
    "process_vm_writev": "libc(311 if x86 else 271, os.getppid(), 0, 0, 0, 0, 0)",
    "limits of another": "resource.prlimit(os.getppid(), resource.RLIMIT_CPU)",
    "in a thread that was there": "asked.set(); answer = answers.get(); raise PermissionError if answer else 0",
    "in a new thread": "pool.submit(os.fork).result()",
}

PROGRAM = """
import ctypes, os, queue, resource, subprocess, threading
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
x86 = os.uname().machine == "x86_64"

def libc(*arguments):
    if ctypes.CDLL(None, use_errno=True).syscall(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")

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


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS.keys())
def test_no_way_to_start_a_process_is_open(deed: str) -> None:
    assert output_of(PROGRAM.format(deed=deed)) == "forbidden"


OWN = """
import os, resource, signal, threading
from gateway.serving.process_ban import ban_processes

assert ban_processes()
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
os.kill(os.getpid(), signal.SIGUSR1)
signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
print(len(heard), resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)[0] == soft - 1)
"""


def test_a_process_may_signal_and_limit_itself() -> None:
    """The runtime aborts, and a thread has its stack's size from the limits."""
    assert output_of(OWN) == "2 True"


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
