"""The supervisor's side of one child process: started by exec, heard on a pipe, reaped."""

import asyncio
import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from gateway.runtime.child import INHERITED_FDS, NO_SOCKETS, REPORT_FD, ChildReport, Settings
from gateway.runtime.liveness import Heartbeat

_LINE_LIMIT_BYTES: Final = 1 << 16
_FREE_FD: Final = max(REPORT_FD, *INHERITED_FDS.values()) + 1
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_RESET_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_log = logging.getLogger(__name__)


class ChildProcess:
    """A started child.

    `ready` is set when it reported so, `exited` when it has ended and was reaped; `ending` says how, in words.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: Settings,
        opening: str,
        *,
        loaded: Callable[[str], None] | None = None,
        sockets: Mapping[str, int] = NO_SOCKETS,
    ) -> None:
        """Starts it; `opening` is the line on its standard input, `loaded` is told the models that it says are loaded.

        `sockets` are the listening sockets that it shares, by their options.

        Raises: OSError if the system cannot (no such program, no free process, no memory).
        """
        self._loop = asyncio.get_running_loop()
        self.settings = settings
        self.started_at = self._loop.time()
        self.ready_at = 0.0
        self.heartbeat = Heartbeat(self.started_at)
        self.ready = asyncio.Event()
        self.exited = asyncio.Event()
        self.ending = ""
        self.status = 0  # as exited: the exit code, negative for a signal
        self.kill_reason = ""
        self.hung = False  # by its own fault, as far as anybody can tell
        self.findings = ""  # what it ran when it was found to hang
        self._loaded = loaded
        self._heard = bytearray()
        self._waits_from = (0.0, 0.0)  # since when it is silent, but for its waits; how long those were by then
        self.pid, self._stdin, self._reports = _spawn(command, sockets)
        try:
            os.write(self._stdin, opening.encode() + b"\n")
        except OSError:
            pass  # it has died already, which `exited` will tell
        os.set_blocking(self._reports, False)
        self._loop.add_reader(self._reports, self._hear)
        self._reaper = self._loop.create_task(self._reap())

    def signal(self, number: signal.Signals) -> None:
        if not self.exited.is_set():
            os.kill(self.pid, number)  # not reaped, so the number is still this child's

    def kill(self, reason: str) -> None:
        """Ends it at once; `ending` will name the reason."""
        self.kill_reason = self.kill_reason or reason
        self.signal(signal.SIGKILL)

    def is_stopped(self) -> bool:
        """Returns whether somebody has stopped it (SIGSTOP, a debugger), so that it cannot beat."""
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        return status.rpartition(")")[2].split()[:1] in (["T"], ["t"])

    def resident_bytes(self) -> int:
        """Returns the memory that it holds; 0 where the system does not tell."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * _PAGE_BYTES

    def forgive_waits(self, now: float) -> None:
        """Leaves out of its silence for how long it was ready to run since the last call, and others had the CPU."""
        waited_s = self._waited_s()
        heard_at, before_s = self._waits_from
        if heard_at == self.heartbeat.heard_at:
            self.heartbeat.excuse(min(waited_s - before_s, now - heard_at))
        self._waits_from = (self.heartbeat.heard_at, waited_s)

    def _waited_s(self) -> float:
        """Returns how long its main thread has waited for a CPU in all; 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def mark_ready(self) -> None:
        if not self.ready.is_set():
            self.ready_at = self._loop.time()
            self.heartbeat.ready = True
            self.ready.set()

    def relieve(self) -> None:
        """Lets a child that stands by serve."""
        try:
            os.write(self._stdin, b"\n")
        except OSError:
            pass  # it has died, which `exited` will tell

    def served_s(self) -> float:
        """Returns how long it has been, or was, serving; 0 if it never got so far."""
        return self._loop.time() - self.ready_at if self.ready_at else 0.0

    async def stop(self, limit_s: float) -> None:
        """Ends the child by SIGTERM, or kills it when the limit is over; returns once it was reaped."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(limit_s):
                await self.exited.wait()
        except TimeoutError:
            self.kill(f"did not stop within {limit_s:.1f} s")
            await self.exited.wait()

    def _hear(self) -> None:
        try:
            heard = os.read(self._reports, 65536)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self._loop.remove_reader(self._reports)
            return
        self._heard += heard
        *lines, rest = bytes(self._heard).split(b"\n")
        self._heard = bytearray(rest[:_LINE_LIMIT_BYTES])
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = msgspec.json.decode(line, type=ChildReport)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            _log.warning("%s-%d (%d) reported no JSON object", self.settings.role, self.settings.slot, self.pid)
            return
        self.heartbeat.heard(self._loop.time())
        if message.ready:
            self.mark_ready()
        if message.loaded and self._loaded is not None:
            self._loaded(message.loaded)

    async def _reap(self) -> None:
        self.status = await _exit_status(self.pid)
        self.ending = self.kill_reason or _in_words(self.status)
        self._loop.remove_reader(self._reports)
        os.close(self._reports)
        os.close(self._stdin)
        self.exited.set()


def _spawn(command: Sequence[str], sockets: Mapping[str, int]) -> tuple[int, int, int]:
    """Returns the process id, the writing end of its standard input, the reading end of its reports.

    exec without fork of this process's memory; a process group of its own, so that Ctrl-C reaches the supervisor alone.
    What a child prints goes to standard error: standard output is for what the operator asked for.
    """
    with ExitStack() as ours, ExitStack() as childs:  # whichever descriptor is the one too many, none is left behind
        stdin_read, stdin_write = os.pipe()
        childs.callback(os.close, stdin_read)
        ours.callback(os.close, stdin_write)
        report_read, report_write = os.pipe()
        ours.callback(os.close, report_read)
        childs.callback(os.close, report_write)

        def aside(descriptor: int) -> int:
            """Returns the same, out of the way of the descriptors whose places they take in the child."""
            moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FREE_FD)
            childs.callback(os.close, moved)
            return moved

        actions = [
            (os.POSIX_SPAWN_DUP2, stdin_read, 0),
            (os.POSIX_SPAWN_DUP2, 2, 1),
            (os.POSIX_SPAWN_DUP2, aside(report_write), REPORT_FD),
            *((os.POSIX_SPAWN_DUP2, aside(one), INHERITED_FDS[option]) for option, one in sockets.items()),
        ]
        # A worker probes models in processes of its own; gRPC's handlers for fork would complain of each, and do
        # nothing. numpy's BLAS would start a thread for each CPU, which spins between two products; models have theirs.
        environ = {"OPENBLAS_NUM_THREADS": "1", **os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}
        pid = os.posix_spawn(
            command[0], list(command), environ, file_actions=actions, setpgroup=0, setsigmask=(),
            setsigdef=_RESET_SIGNALS,
        )  # fmt: skip
        ours.pop_all()
    return pid, stdin_write, report_read


async def _exit_status(pid: int) -> int:
    """Returns the exit code, negative for a signal; the child is reaped."""
    if sys.platform == "linux":
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # no descriptor is left, or a sandbox refuses the call: the end has to be seen all the same
            return await _reaped_by_thread(pid)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return _reaped(pid)
    return await _reaped_by_thread(pid)


async def _reaped_by_thread(pid: int) -> int:
    """Returns the exit code, by a thread of its own: those of a pool are fewer than a gateway may have children."""
    loop = asyncio.get_running_loop()
    status: asyncio.Future[int] = loop.create_future()

    def tell(code: int) -> None:
        if not status.done():
            status.set_result(code)

    def wait() -> None:
        code = _reaped(pid)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, code)

    threading.Thread(target=wait, name=f"end of {pid}", daemon=True).start()
    return await status


def _reaped(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _in_words(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
