"""The process that the processes of trials are forked from, so that a trial need not import the runtime again.

    worker ── "start 7" with two descriptors ──> this process ── fork ──> one that answers one ProbeRequest, and ends
           <── "ended 7 -11", after "end 7" ──
           <── "failed 7 11", with the error's number, where no process could be started for it ──

It reads no model but one of its own, has one thread, and keeps nothing of a trial: each gets a copy of what was there
before any. Where importing the runtime, or running it, has started threads (a build or a setting that we do not know),
a fork would lack them: each trial is then a program of its own. So it is where the system does not tell its threads,
as on macOS, whose frameworks do not outlive a fork.

Messages on the control socket have MESSAGE_BYTES each, for not every system keeps them apart.

Order: an "end" is answered when the trial's process has been reaped, killed if it had not ended by itself.
"""

import gc
import logging
import os
import select
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Final, NoReturn

from onnx import TensorProto, helper

from gateway.serving.probe_child import NICENESS, answer, end_with_parent, forbid_tracing, peak_memory, probe
from gateway.serving.probe_request import ProbeRequest
from loaders.loader import FileEntry, LocalVersion

CONTROL_FD: Final = 0
PROGRAM: Final = ("-P", "-m", "gateway.serving.probe")
START: Final = b"start"
END: Final = b"end"
ENDED: Final = b"ended"
FAILED: Final = b"failed"
READY: Final = b"ready"
MESSAGE_BYTES: Final = 64
_DESCRIPTORS: Final = 2  # the channel of the request and the answers, and where errors are printed

logger = logging.getLogger(__name__)


class ZygoteProcess:
    """Starts trials and reaps them, as told on the control socket."""

    def __init__(self, control: socket.socket, *, forks: bool, growth_bytes: int = 0) -> None:
        """`forks`: trials are forks, not programs; each grows by `growth_bytes`, whatever it tries."""
        self._control = control
        self._forks = forks
        self._growth_bytes = growth_bytes
        self._pid = os.getpid()
        self._trials: dict[bytes, int] = {}  # the process of each trial that has not been reaped
        self._ending: set[bytes] = set()
        self._woken, self._waker = os.pipe()
        for descriptor in (self._woken, self._waker):
            os.set_blocking(descriptor, False)

    def run(self) -> None:
        """Does what it is told until the control socket is closed; no trial is left then."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._control.sendall(padded(READY))
        try:
            while True:
                ready, _, _ = select.select([self._control.fileno(), self._woken], [], [])
                if self._control.fileno() in ready and not self._obey():
                    return
                with suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                self._reap()
        finally:
            for pid in self._trials.values():
                os.kill(pid, signal.SIGKILL)

    def _obey(self) -> bool:
        """Follows one command; returns whether there may be more."""
        message, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, _DESCRIPTORS, socket.MSG_WAITALL)
        if len(message) < MESSAGE_BYTES:
            return False
        command, _, trial = message.rstrip().partition(b" ")
        if command == START:
            self._start(trial, *descriptors)
        elif command == END:
            self._ending.add(trial)
            if trial in self._trials:
                os.kill(self._trials[trial], signal.SIGKILL)  # not reaped, so the number is still this trial's
        return True

    def _start(self, trial: bytes, channel: int, errors: int) -> None:
        try:
            pid = os.fork() if self._forks else _program(channel, errors)
        except OSError as error:
            self._control.sendall(padded(b"%b %b %d" % (FAILED, trial, error.errno or 0)))
            pid = -1
        if pid == 0:
            self._become_trial(channel, errors)
        os.close(channel)
        os.close(errors)
        if pid > 0:
            self._trials[trial] = pid

    def _reap(self) -> None:
        """Tells how the trials have ended that somebody asked about; those that were never there too."""
        for trial in tuple(self._ending):
            status = 0
            if trial in self._trials:
                pid, waited = os.waitpid(self._trials[trial], os.WNOHANG)
                if pid == 0:
                    continue
                status = os.waitstatus_to_exitcode(waited)
                del self._trials[trial]
            self._ending.discard(trial)
            self._control.sendall(padded(b"%b %b %d" % (ENDED, trial, status)))

    def _become_trial(self, channel: int, errors: int) -> NoReturn:
        """Answers the request on the channel, in the forked process. Nothing of this one's is left open there."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            end_with_parent()
            if os.getppid() != self._pid:
                os._exit(code)  # the zygote went before the kernel knew that its end is this one's
            self._control.close()
            os.dup2(channel, 0)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            for descriptor in (self._woken, self._waker, errors):
                os.close(descriptor)
            os.setpgid(0, 0)  # not a session, which would have a share of the CPU of its own
            with os.fdopen(0, "rb", closefd=False) as requests, os.fdopen(channel, "wb") as answers:
                answer(requests, answers, growth_bytes=self._growth_bytes)
            code = 0
        except BaseException:  # the boundary of a forked process, which must never return into its parent's code
            logger.exception("the trial failed")
        finally:
            os._exit(code)


def _program(channel: int, errors: int) -> int:
    """Returns the process of a trial that starts anew, without a fork. Raises: OSError."""
    actions = [
        *((os.POSIX_SPAWN_DUP2, channel, descriptor) for descriptor in (0, 1)),
        (os.POSIX_SPAWN_DUP2, errors, 2),
        *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in (channel, errors)),  # who receives one inherits it
    ]
    return os.posix_spawn(
        sys.executable, (sys.executable, *PROGRAM), os.environ, file_actions=actions, setsigdef=(signal.SIGCHLD,)
    )


def padded(message: bytes) -> bytes:
    """Returns what is sent on the control socket for the message."""
    return message.ljust(MESSAGE_BYTES)


def rehearse() -> None:
    """Tries a model of our own, so that what the first trial in a process builds is there before any."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "rehearsal", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "model.onnx").write_bytes(content)
        local = LocalVersion(Path(directory), "", (FileEntry("model.onnx", len(content), sha256(content).hexdigest()),))
        result = probe(ProbeRequest(local), BytesIO())
    if not result.ok:
        raise RuntimeError(result.reason)


def growth() -> int:
    """Returns by how much a fork of this process grows when it tries the model that was rehearsed, in bytes."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            begin = peak_memory()
            rehearse()
            os.write(write, b"%d" % (peak_memory() - begin))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        text = told.read()
    os.waitpid(pid, 0)
    return int(text or b"0")


def threads() -> int:
    """Returns how many threads this process has; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def main() -> None:
    """Serves the control socket that is standard input."""
    end_with_parent()
    os.nice(NICENESS)
    forbid_tracing()
    with socket.socket(fileno=os.dup(CONTROL_FD)) as control, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), CONTROL_FD)
        try:
            rehearse()
        except Exception:  # the trials say what is wrong, each by itself
            logger.exception("the rehearsal of a trial failed")
        forks = threads() == 1
        if threads() > 1:
            logger.warning("the runtime has %d threads before any model: each trial starts anew", threads())
        gc.collect()
        gc.freeze()
        ZygoteProcess(control, forks=forks, growth_bytes=growth() if forks else 0).run()


if __name__ == "__main__":
    main()
