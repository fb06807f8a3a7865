"""One child of the supervisor: what is left of one that cannot be started, who sees its end, what counts as silence."""

import asyncio
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.runtime.child import Settings
from gateway.runtime.child_process import ChildProcess
from gateway.runtime.config_parser import parse
from gateway.runtime.liveness import Timing
from gateway.runtime.service import Service
from tests.machine_load import as_loaded

SPINS = (sys.executable, "-S", "-c", "while True: pass")
RESTS = (sys.executable, "-S", "-c", "import os, time; os.write(3, b'{\"beat\": 1}\\n'); time.sleep(600)")
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


@contextmanager
def crowded_cpu(*, others: int = 3) -> Iterator[int]:
    """The number of a CPU on which so many programs never pause."""
    cpu = min(os.sched_getaffinity(0))
    with ExitStack() as stack:
        for _ in range(others):
            other = stack.enter_context(subprocess.Popen(SPINS))
            stack.callback(other.kill)
            os.sched_setaffinity(other.pid, {cpu})
        yield cpu


async def test_who_waits_for_a_cpu_is_forgiven_that_and_who_rests_is_not(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    own = settings(tmp_path)
    with crowded_cpu() as cpu:
        children = [ChildProcess(program, own, own.to_json()) for program in (SPINS, RESTS)]
        spins, rests = children
        for child in children:
            os.sched_setaffinity(child.pid, {cpu})
        begun, from_s = 0.0, [0.0, 0.0]
        async with asyncio.timeout(as_loaded(30)):
            while not begun or spins.heartbeat.heard_at < from_s[0] + 1.0:
                await asyncio.sleep(0.05)
                for child in children:
                    child.forgive_waits(loop.time())
                if not begun and rests.heartbeat.beaten:
                    begun, from_s = loop.time(), [child.heartbeat.heard_at for child in children]
        assert spins.heartbeat.heard_at <= loop.time()
        assert rests.heartbeat.heard_at - from_s[1] < 0.5 * (loop.time() - begun)
        for child in children:
            child.kill("the test is over")
            await child.exited.wait()


async def test_a_service_that_forgives_waits_kills_who_had_the_cpu_for_long_enough(tmp_path: Path) -> None:
    """Of two seconds on the clock the child would have had half a one."""
    loop = asyncio.get_running_loop()
    timing = Timing(suspect_s=0.1, silence_s=1.0, start_s=1.0, forgives_waits=True)
    service = Service(SPINS, lambda: settings(tmp_path), timing=timing, changed=lambda: None)
    with crowded_cpu() as cpu:
        used_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        running = asyncio.create_task(service.run())
        async with asyncio.timeout(as_loaded(60)):
            while not service.restarts:
                await asyncio.sleep(0.02)
                pid = service.describe()["pid"]
                if isinstance(pid, int) and pid:
                    os.sched_setaffinity(pid, {cpu})
                service.check(loop.time(), 0.0)
        used_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used_s
        await service.stop(0.0)
        await running
    assert "hung: silent for 1." in service.reason
    assert used_s > 0.6
