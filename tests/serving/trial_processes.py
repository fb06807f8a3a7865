"""The processes of trials, as the kernel lists them."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.serving.probe import Prober, ProbeRequest
from gateway.serving.probe_request import ProbeResult
from tests.machine_load import as_loaded


def state(pid: int) -> str:
    """The state letter of a process, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def filters(pid: int) -> list[str]:
    """The seccomp mode of each thread of a process; "2" is a filter."""
    statuses = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [re.findall(r"^Seccomp:\s(\d)$", status, re.MULTILINE)[0] for status in statuses]


EARLIER: set[int] = set()


def zygotes(parent: int = 0) -> list[int]:
    """The ids of the zygotes that this process, or `parent`, has started and that have not ended; or their trials'.

    Each leads a process group of its own; what a zygote forks to measure a fork does not. Zygotes of a gateway that
    tests of other files share may be idle beside them.
    """
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, started_by, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        is_ours = int(started_by) == (parent or os.getpid()) and group == folder.name
        if is_ours and b"gateway.serving." in command and state != "Z" and int(folder.name) not in EARLIER:
            processes.append(int(folder.name))
    return processes


def children() -> list[int]:
    """The ids of the trials that this process started and that have not ended."""
    return [trial for zygote in zygotes() for trial in zygotes(zygote)]


async def until(condition: Callable[[], object], *, within_s: float = 20) -> None:
    async with asyncio.timeout(as_loaded(within_s)):
        while not condition():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


@asynccontextmanager
async def probing(request: ProbeRequest, prober: Prober) -> AsyncIterator[tuple[asyncio.Task[ProbeResult], int]]:
    """A probe under way and the id of its process."""
    task = asyncio.ensure_future(prober.probe(request))
    try:
        await until(lambda: children() or task.done())
        yield task, children()[0]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
