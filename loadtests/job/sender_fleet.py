"""The sender processes of this host: started, sent off at one moment, listened to, and ended in any case."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.errors import InvalidArgument
from loadtests.job.sender import SenderOrder
from loadtests.job.tally import Tally
from loadtests.job.target import TargetFailed

_ROOT: Final = Path(__file__).parents[2]
_READY_S: Final = 120.0
_START_S: Final = 0.3  # until the first call: every sender has heard of it by then
_END_S: Final = 5.0
_LINE_BYTES: Final = 1 << 28
COMMAND: Final = (sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(_ROOT)!r}); "
                  "from loadtests.job.sender_process import main; sys.exit(main())")  # fmt: skip


@dataclass(slots=True)
class SenderFleet:
    """Sends a scenario's calls from `order.count` processes. Order: `prepare`, `run`; `close` in any case."""

    order: SenderOrder
    notes: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    _processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def prepare(self) -> None:
        """Every sender is ready. Raises: TargetFailed, InvalidArgument."""
        for index in range(self.order.count):
            process = await asyncio.create_subprocess_exec(
                *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES
            )
            self._processes.append(process)
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(replace(self.order, index=index)) + b"\n")
        async with asyncio.timeout(_READY_S):
            for said in await asyncio.gather(*(_said(process) for process in self._processes)):
                if "failed" in said:
                    raise (InvalidArgument if said["usage"] else TargetFailed)(said["failed"])
                self.notes += said["ready"]

    async def run(self, started: Callable[[float], None], heard: Callable[[Tally], None] | None = None) -> None:
        """Every call has been made, and `tally` says what became of them.

        `started` is given the moment of the first measured call, in seconds since the epoch.

        Raises: TargetFailed where a sender ended before its time.
        """
        start_s = time.time() + _START_S + self.order.warm_up_s
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"go %f\n" % start_s)
        started(start_s)
        async with asyncio.TaskGroup() as group:
            for process in self._processes:
                group.create_task(self._listen(process, heard))

    async def _listen(self, process: asyncio.subprocess.Process, heard: Callable[[Tally], None] | None) -> None:
        while "done" not in (said := await _said(process)):
            if "tally" in said:
                part = Tally.from_json(said["tally"])
                self.tally.merge(part)
                if heard is not None:
                    heard(part)
            elif "failed" in said:
                raise TargetFailed(said["failed"])

    async def close(self) -> None:
        """No sender is left; what they had counted until now is in `tally`."""

        async def end(process: asyncio.subprocess.Process) -> None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                async with asyncio.timeout(_END_S):
                    await self._listen(process, None)
            except (TimeoutError, TargetFailed):
                pass
            if process.returncode is None:
                process.kill()
            await process.wait()

        await asyncio.gather(*(end(process) for process in self._processes))


async def _said(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    if not (line := await process.stdout.readline()):
        raise TargetFailed("a sender has ended before its time; what it said is above")
    said: dict[str, Any] = json.loads(line)
    return said
