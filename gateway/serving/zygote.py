"""The worker's side of the process that trials are forked from (`gateway.serving.zygote_process`)."""

import asyncio
import logging
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import IO, Final

from gateway.serving.zygote_process import END, ENDED, FAILED, MESSAGE_BYTES, READY, START, padded

_LINE_LIMIT: Final = 64 << 20
# Nothing runs in a zygote beside its trials, so that libraries need no threads; a process that has some cannot fork.
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

logger = logging.getLogger(__name__)


class ZygoteGone(Exception):
    """The process that trials are forked from has ended, and with it those that ran."""


@dataclass(slots=True)
class Trial:
    """A trial's process: what it answers, what it is sent, and what it prints as errors."""

    number: bytes
    answers: asyncio.StreamReader
    requests: asyncio.StreamWriter
    errors: IO[bytes]


class Zygote:
    """Starts trials. Its process is started for the first one, and ends when none has come for `idle_s`.

    Used on one loop, and to be closed where it may be idle.
    """

    def __init__(self, *, idle_s: float = 0.0) -> None:
        self._idle_s = idle_s
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._heard = b""  # the begin of a message
        self._numbers = count(1)
        self._trials: dict[bytes, asyncio.Future[int]] = {}
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Returns the number of its process; None while there is none."""
        return None if self._control is None or self._process is None else self._process.pid

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[Trial]:
        """Yields a new trial, which has ended with the block, killed if it runs then.

        Raises: OSError (no process could be started); ZygoteGone.
        """
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        number = b"%d" % next(self._numbers)
        # Here before anything is awaited: the process must not count as idle meanwhile.
        ended = self._trials[number] = asyncio.get_running_loop().create_future()
        try:
            control = await self._started()
            with tempfile.TemporaryFile() as errors:
                ours, theirs = socket.socketpair()
                ours.setblocking(False)
                with theirs:
                    self._send(control, b"%b %b" % (START, number), theirs.fileno(), errors.fileno())
                answers, requests = await asyncio.open_unix_connection(sock=ours, limit=_LINE_LIMIT)
                trial = Trial(number, answers, requests, errors)
                try:
                    yield trial
                finally:
                    requests.close()
                    with suppress(ZygoteGone):
                        await self.end(trial)
        finally:
            del self._trials[number]
            if ended.done():
                ended.exception()  # heard, or nobody asked
            if not self._trials:
                await self._rest()

    async def end(self, trial: Trial) -> int:
        """Returns how the trial has ended: its exit code, negative for a signal. It is killed where it runs.

        Raises: OSError (no process could be started for it); ZygoteGone.
        """
        ended = self._trials[trial.number]
        if not ended.done():
            try:
                if self._control is not None:
                    self._control.sendall(padded(b"%b %b" % (END, trial.number)))
            except OSError:
                self._gone()
        return await asyncio.shield(ended)

    async def aclose(self) -> None:
        """Ends its process, and with it whatever trial runs."""
        self._gone()
        if self._process is not None:
            await self._process.wait()

    async def _rest(self) -> None:
        """Ends the process now or later, as nothing is tried any more."""
        if self._idle_s:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_s, self._gone)
        else:
            await self.aclose()

    def _send(self, control: socket.socket, command: bytes, *descriptors: int) -> None:
        try:
            whole = socket.send_fds(control, [padded(command)], descriptors) == MESSAGE_BYTES
        except OSError:
            whole = False
        if not whole:
            self._gone()
            raise ZygoteGone

    async def _started(self) -> socket.socket:
        """Returns the control socket of its process, which is ready to fork."""
        async with self._starting:
            if self._control is not None:
                return self._control
            if self._process is not None:
                if self._process.returncode is None:
                    self._process.kill()
                await self._process.wait()
            loop = asyncio.get_running_loop()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            try:
                with theirs:
                    self._process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-P", "-m", "gateway.serving.zygote_process"),
                        stdin=theirs.fileno(),
                        stdout=asyncio.subprocess.DEVNULL,
                        env={**os.environ, **_ONE_THREAD},
                        start_new_session=True,  # a Ctrl-C in the terminal is the worker's to handle
                    )
                if await loop.sock_recv(ours, MESSAGE_BYTES) != padded(READY):
                    raise OSError(0, f"exit code {await self._process.wait()} at its start")
            except BaseException:
                ours.close()
                if self._process is not None and self._process.returncode is None:
                    self._process.kill()
                raise
            self._control, self._heard = ours, b""
            loop.add_reader(ours.fileno(), self._hear)
            return ours

    def _hear(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            heard = control.recv(MESSAGE_BYTES - len(self._heard))
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self._gone()
            return
        self._heard += heard
        if len(self._heard) < MESSAGE_BYTES:
            return
        word, number, status = self._heard.split()
        self._heard = b""
        ended = self._trials.get(number)
        if ended is None or ended.done():
            return
        if word == ENDED:
            ended.set_result(int(status))
        elif word == FAILED:
            ended.set_exception(OSError(int(status), os.strerror(int(status))))

    def _gone(self) -> None:
        """Lets go of its process, which ends when the socket is closed."""
        control, self._control = self._control, None
        if control is None:
            return
        asyncio.get_running_loop().remove_reader(control.fileno())
        control.close()
        for ended in self._trials.values():
            if not ended.done():
                ended.set_exception(ZygoteGone())
