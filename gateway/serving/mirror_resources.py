"""The resources that mirrors share in a worker: bytes, a thread of low priority, and how busy the worker is."""

import asyncio
import os
import sys
import threading
from contextlib import suppress
from time import monotonic, process_time
from typing import Protocol

from gateway.records.worker.record_stream import RecordStream
from gateway.serving.admission import Admission
from gateway.serving.call import Call
from gateway.serving.cpu_share import CpuShare
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.version import Version
from gateway.serving.version_queue import VersionQueue
from gateway.threads import started_threads

SAMPLE_S = 1.0
# Above this share of the admission's limits no call is mirrored.
BUSY = 0.8
# Requests and answers that all mirrored calls of a worker keep alive.
MAX_BYTES = 64 << 20
NICENESS = 10


class MirrorHost(Protocol):
    """The part of the engine that mirrors need."""

    def find(self, model: str, name: str) -> Version: ...

    def own_queue(self, version: Version) -> VersionQueue | None:
        """Returns a new queue for a version that has no session; None for one that has."""

    def queued(self, version: Version) -> int: ...

    def mirror_batch(self, version: Version, arm: str, call: Call) -> None:
        """Counts the runs of the call with this arm."""

    def mirror_stream(self, version: Version, arm: str, primary: str) -> RecordStream: ...


class MirrorResources:
    """Holds what all mirrors of a worker share: their bytes, their thread, and how busy the worker is."""

    __slots__ = ("_asked", "_timer", "admission", "cpu", "held_bytes", "host", "loop", "shared", "threads")

    def __init__(
        self,
        host: MirrorHost,
        admission: Admission,
        loop: asyncio.AbstractEventLoop,
        shared: SharedRunState,
        *,
        cpus: float,
    ) -> None:
        self.host = host
        self.admission = admission
        self.loop = loop
        self.shared = shared
        self.cpu = CpuShare(cpus)
        self.held_bytes = 0
        self.threads = started_threads(1, "mirror", _be_nice)
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None

    def cpu_share(self) -> float:
        """Returns the worker's share of its CPUs in use, at most about a second old."""
        self._asked = True
        if self._timer is None:
            self._sample()
        return self.cpu.value

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.threads.shutdown(wait=False, cancel_futures=True)

    def _sample(self) -> None:
        """Samples the share, as long as somebody asks for it."""
        if not self._asked:
            self._timer = None
            self.cpu.restart()
            return
        self._asked = False
        self.cpu.sample(process_time(), monotonic())
        self._timer = self.loop.call_later(SAMPLE_S, self._sample)


def _be_nice() -> None:
    """Lowers the thread's priority on Linux where that is allowed; elsewhere it would be the whole process's."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
