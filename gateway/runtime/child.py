"""A child process's side of what the supervisor and its children agree on.

1. The supervisor writes one JSON line to the child's standard input and keeps the pipe open: settings never stand in
   the arguments or the environment, where other users can read them.
2. The end of that pipe means that the supervisor is gone: the child stops. On Linux the kernel also kills the child
   then, which reaches one that hangs.
3. On descriptor 3 the child writes JSON lines: `{"ready": true}` once it serves, `{"beat": n}` twice a second from its
   event loop, `{"draining": true}` when it has begun to stop.
   A child that stands by does all but serve, until the supervisor writes to its standard input once more.
4. SIGTERM asks for a stop that finishes what runs; the exit status is then 0.
"""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.runtime.config import Config, decode, encode
from gateway.telemetry.logs import start_logging

REPORT_FD: Final = 3
# Where a child finds a listening socket that it shares with others, by the option that names its address.
INHERITED_FDS: Final[Mapping[str, int]] = {
    "control-socket": 4,
    "grpc-port": 5,
    "http-port": 6,
    "control-port": 7,
    "metrics-port": 8,
}
NO_SOCKETS: Final[Mapping[str, int]] = MappingProxyType({})
_INHERITED_BY: Final[Mapping[str, Sequence[str]]] = {
    "worker": ("control-socket", "grpc-port", "http-port", "control-port"),
    "control": ("metrics-port",),
}
BEAT_SECONDS: Final = 0.5
_SETTINGS_LIMIT_BYTES: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1
_log = logging.getLogger(__name__)


class ChildReport(msgspec.Struct):
    """What the supervisor reads in a line on descriptor 3; every line is a beat."""

    ready: bool = False
    loaded: str = ""  # a model that somebody has loaded by hand


@dataclass(frozen=True, slots=True)
class Settings:
    """What a child is told: the configuration, which child it is, and of which run of the gateway.

    `instance` is new with every start of the supervisor, `boot` with every start of a child. `predecessor` is the boot
    of the child that died in this place, "" if none did; that of a child that is silent if this one stands by for it.
    `last`: the gateway stops, and the child is started for what is left to do. `inherits` names the listening sockets
    that it is given.
    """

    config: Config
    role: str
    slot: int
    instance: str
    boot: str
    supervisor_pid: int
    predecessor: str = ""
    stands_by: bool = False
    last: bool = False
    inherits: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Returns one line for the child's standard input; it holds the secrets."""
        return encode(self).decode()

    def inherited(self, option: str) -> socket.socket | None:
        """Returns the socket that this process was given for the option's address; None if it has to make one."""
        return socket.socket(fileno=INHERITED_FDS[option]) if option in self.inherits else None


def inherited_by(role: str, sockets: Mapping[str, int]) -> dict[str, int]:
    """Returns those of the listening sockets that a child of the role is given."""
    return {option: sockets[option] for option in _INHERITED_BY.get(role, ()) if option in sockets}


def read_settings() -> Settings:
    """Returns the settings that the supervisor sent to this process, which from here on dies with it.

    Order: before the event loop runs.
    """
    os.set_inheritable(REPORT_FD, False)
    settings = decode(_first_line(0), Settings)
    for option in settings.inherits:
        os.set_inheritable(INHERITED_FDS[option], False)
    die_with(settings.supervisor_pid)
    process = settings.config.process
    start_logging(f"{settings.role}-{settings.slot}", process.log_level, process.log_format)
    return settings


def die_with(parent_pid: int) -> None:
    """Makes the kernel kill this process when its parent ends; where it cannot, the end of standard input must do."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            _log.warning("prctl(PR_SET_PDEATHSIG) failed: %s", os.strerror(ctypes.get_errno()))
    if os.getppid() != parent_pid:  # it had ended before the kernel was asked
        raise SystemExit(1)


class SupervisorLink:
    """The running child's link to its supervisor.

    `stopping` is set when the child is to end; `orphaned` says that nobody waits for it to finish its work.
    """

    def __init__(self, report_fd: int = REPORT_FD) -> None:
        self._report_fd = report_fd
        self.stopping = asyncio.Event()
        self.orphaned = False
        self._relieving = asyncio.Event()
        self._draining = False
        self._beats = 0
        self._beaten_s = 0.0
        self._unsaid: dict[str, object] = {}  # what found no room in the pipe

    def ready(self) -> None:
        """Tells the supervisor that this child serves."""
        self._report({"ready": True})

    async def turn(self, settings: Settings) -> bool:
        """Returns True once this child is to serve, which is now unless it stands by; False if it is to stop before."""
        if not settings.stands_by:
            return not self.stopping.is_set()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._relieving, self.stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self.stopping.is_set()

    def loaded(self, model: str) -> None:
        """Tells the supervisor that somebody has loaded the model: what it did before is forgiven."""
        self._report({"loaded": model})

    def draining(self) -> None:
        """Tells the supervisor that this child has begun to stop."""
        self._draining = True
        self._report({"draining": True})

    def stop(self) -> None:
        self.stopping.set()

    async def beat(self) -> None:
        """Beats until it is cancelled. A loop that is stuck does not beat, which is the point."""
        while True:
            self._beat()
            await asyncio.sleep(BEAT_SECONDS)

    def progress(self) -> None:
        """Beats if that is due: one turn of the loop may hold so many calls that a timer comes too late."""
        if monotonic() - self._beaten_s >= BEAT_SECONDS:
            self._beat()

    def _beat(self) -> None:
        self._beaten_s = monotonic()
        self._report({"beat": self._beats})
        self._beats += 1

    def _report(self, message: dict[str, object]) -> None:
        said = self._unsaid | message
        try:
            os.write(self._report_fd, msgspec.json.encode(said) + b"\n")
            self._unsaid = {}
        except BlockingIOError:
            self._unsaid = said  # the supervisor is behind by thousands of beats; the next one says this as well
        except OSError:
            self._orphan()

    def _orphan(self) -> None:
        self.orphaned = True
        self.stopping.set()

    def _readable(self) -> None:
        try:
            if os.read(0, 4096):
                self._relieving.set()
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        asyncio.get_running_loop().remove_reader(0)
        self._orphan()


@asynccontextmanager
async def supervisor_link() -> AsyncIterator[SupervisorLink]:
    """Yields the link, beating and with signals and the end of standard input watched, until the block ends."""
    loop = asyncio.get_running_loop()
    link = SupervisorLink()
    os.set_blocking(REPORT_FD, False)
    os.set_blocking(0, False)
    loop.add_reader(0, link._readable)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, link.stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # it is meant for the supervisor
    beating = asyncio.create_task(link.beat())
    try:
        yield link
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        loop.remove_reader(0)


def _first_line(fd: int) -> bytes:
    """Bytes up to the first newline; what follows stays in the pipe, for whoever waits for its end."""
    line = bytearray()
    while len(line) < _SETTINGS_LIMIT_BYTES:
        byte = os.read(fd, 1)
        if byte in (b"", b"\n"):
            return bytes(line)
        line += byte
    raise ValueError(f"settings of more than {_SETTINGS_LIMIT_BYTES} bytes on standard input")
