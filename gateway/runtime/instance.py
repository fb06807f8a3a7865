"""What only one gateway may hold: its data directory and its ports."""

import errno
import fcntl
import os
import socket
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

import msgspec

from gateway.errors import FailedPrecondition
from gateway.runtime.config import Config

STATE_FILE: Final = "state.json"
# Whether the kernel spreads new connections over all sockets that listen on a port by SO_REUSEPORT.
KERNEL_SPREADS: Final = sys.platform == "linux"
# How long the workers of a supervisor that was killed may still hold a port.
_PORT_PATIENCE_S: Final = 1.0


class InstanceLock:
    """The lock on a data directory, held until it is closed or this process ends, whatever way."""

    def __init__(self, data_dir: Path) -> None:
        """Raises: FailedPrecondition naming the holder, or why the directory cannot be used."""
        path = data_dir / "lock"
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FailedPrecondition(f"data-dir {str(data_dir)!r} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            who, how = (f" (process {holder})", f" with `kill {holder}`") if holder.isdecimal() else ("", "")
            raise FailedPrecondition(
                f"data-dir {str(data_dir)!r} is in use by a running gateway{who}: stop it{how}, "
                "or give this one another --data-dir"
            ) from None
        with suppress(OSError):  # the lock holds without it: on a full disk nobody can read who has it
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ports:
    """The gateway's ports, reserved: bound, never listening, shared with the children by SO_REUSEPORT.

    Without this a second gateway of the same user would join the port unseen, and the kernel would give it a share of
    the connections.

    Where the kernel does not spread connections over the sockets of a port, children inherit these, and whoever is
    free accepts. (XNU gives those of a given address to the youngest socket, of any address to the oldest: see
    in_pcblookup_hash_locked.)
    """

    def __init__(
        self,
        host: str,
        wanted: Mapping[str, int],
        elsewhere: Mapping[str, str] = MappingProxyType({}),
        *,
        spread: bool = KERNEL_SPREADS,
    ) -> None:
        """Reserves each; 0 is any free port. `elsewhere` has the addresses of those that are not at `host`.

        `spread`: the kernel spreads connections, so that nobody inherits one.

        Raises: FailedPrecondition naming the port that somebody else listens on, and its option.
        """
        self._spread = spread
        self.inherited: dict[str, int] = {}  # descriptors, by their options
        self._sockets: list[socket.socket] = []
        self.numbers: dict[str, int] = {}
        try:
            for option, port in wanted.items():
                self.numbers[option] = self._reserve(elsewhere.get(option, host), port, option)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for held in self._sockets:
            held.close()
        self._sockets.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reserve(self, host: str, port: int, option: str) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            if port:
                _probe(family, host, port)
            held = socket.socket(family, socket.SOCK_STREAM)
            self._sockets.append(held)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if self._spread else socket.SO_REUSEADDR, 1)
            held.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                text = f"another process listens on {host}:{port}: stop it, or give another --{option}"
            else:
                text = f"cannot listen on {host}:{port} (--{option}): {error.strerror}"
            raise FailedPrecondition(text) from None
        if not self._spread:
            held.setblocking(False)
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
            self.inherited[option] = held.fileno()
        number: int = held.getsockname()[1]
        return number


def _probe(family: int, host: str, port: int) -> None:
    """Binds without sharing, which fails if anybody listens there. Raises: OSError."""
    deadline = time.monotonic() + _PORT_PATIENCE_S
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                alone.bind((host, port))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
        time.sleep(0.05)


def make_directories(config: Config) -> None:
    """Makes the directories of a run; the one for sockets belongs to this user alone.

    Raises: FailedPrecondition.
    """
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        config.socket_dir.mkdir(mode=0o700, exist_ok=True)
        status = config.socket_dir.lstat()
    except OSError as error:
        raise FailedPrecondition(f"{error.filename!r} cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise FailedPrecondition(f"{str(config.socket_dir)!r} is not a directory of this user")
    config.socket_dir.chmod(0o700)


def write_state(path: Path, state: Mapping[str, object]) -> None:
    """Replaces the state in the file as a whole. Raises: OSError."""
    staged = path.with_name(f"{path.name}.{os.getpid()}")
    staged.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")
    staged.replace(path)
