"""The heap while models are loaded: buffers are used again, and what was freed goes back to the system."""

import json
import subprocess
import sys

import pytest

_BUFFERS = 6
_BUFFER_BYTES = 40 << 20  # malloc maps each one, unless it is told otherwise

_PROGRAM = f"""
import json, resource, sys
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from gateway.serving.heap import reused_buffers, settle_heap

settle_heap()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fill(buffers: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(buffers):
        b"x" * {_BUFFER_BYTES}
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def loads() -> None:
    fill(1)
    said["before"] = resident()
    said["mapped"] = fill({_BUFFERS})
    with ExitStack() as first:
        with reused_buffers():
            first.enter_context(reused_buffers())
            said["reused"] = fill({_BUFFERS})
        said["reused in the other"] = fill({_BUFFERS})
        kept = b"x" * (1 << 20)  # above what was freed: the heap's end cannot move below it
        said["held"] = resident()
    said["after"] = resident()
    said["mapped again"] = fill({_BUFFERS})
    del kept


said: dict[str, int] = {{}}
thread = Thread(target=loads)  # as loads are: not on the main thread
thread.start()
thread.join()
print(json.dumps(said))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_buffers_are_used_again_until_the_last_load_ends_and_given_back_then() -> None:
    said = json.loads(subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True).stdout)
    pages = _BUFFER_BYTES // 4096
    assert min(said["mapped"], said["mapped again"]) >= _BUFFERS * pages
    assert said["reused"] < 2 * pages, said
    assert said["reused in the other"] < pages, said
    assert said["held"] - said["before"] > _BUFFER_BYTES // 2, said
    assert abs(said["after"] - said["before"]) < 8 << 20, said
