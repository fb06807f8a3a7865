"""One child of the supervisor: what is left of one that cannot be started, and who sees its end."""

import asyncio
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.runtime.child import Settings
from gateway.runtime.child_process import ChildProcess
from gateway.runtime.config_parser import parse
from tests.machine_load import as_loaded

ENDS = (sys.executable, "-S", "-c", "import sys; sys.exit(3)")

pytestmark = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="what Linux tells of processes")


def settings(data_dir: Path) -> Settings:
    config = parse({"data-dir": data_dir, "redis-url": "redis://127.0.0.1:1"}, {}, {})
    return Settings(config=config, role="compactor", slot=0, instance="i", boot=uuid4().hex, supervisor_pid=os.getpid())


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """This process may open so many descriptors, and no more, until the block ends."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, descriptors()))
    with ExitStack() as stack:
        while (filling := os.open(os.devnull, os.O_RDONLY)) < highest:
            stack.callback(os.close, filling)
        os.close(filling)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + number, limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        yield


async def test_a_child_that_cannot_be_started_for_want_of_descriptors_leaves_none(tmp_path: Path) -> None:
    own = settings(tmp_path)
    with socket.socket() as shared:
        before = descriptors()
        child = None
        left = -1
        while child is None:
            left += 1
            with descriptors_left(left), suppress(OSError):
                child = ChildProcess(ENDS, own, own.to_json(), sockets={"grpc-port": shared.fileno()})
            assert child is not None or descriptors() == before, f"with {left} left"
        await child.exited.wait()
    assert child.ending == "ended with status 3"
    assert 4 <= left < 9


async def test_the_end_of_a_child_is_seen_without_a_descriptor_for_it(tmp_path: Path) -> None:
    own = settings(tmp_path)
    child = ChildProcess(ENDS, own, own.to_json())
    with descriptors_left(0):
        async with asyncio.timeout(as_loaded(20)):
            await child.exited.wait()
    assert child.ending == "ended with status 3"
