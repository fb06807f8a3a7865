"""A child of the supervisor that works in steps: configuration on standard input, reports on file descriptor 3."""

import os
import select
import signal
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic

import msgspec

_REPORTS = 3  # the descriptor that a supervisor reads
Progress = Callable[[], None]


class StepProcess:
    """Does one step after the other until it is told to end.

    `step` is given what to call between the parts of its work; `describe` makes the part of a beat that says what was
    done. EOF on standard input or SIGTERM ends it, after the step at work and a last one; `hurry` is called before.
    """

    def __init__(
        self,
        step: Callable[[Progress], object],
        describe: Callable[[], Mapping[str, object]],
        interval_s: float,
        *,
        reports: bool,
        hurry: Callable[[], None] = lambda: None,
    ) -> None:
        self._hurry = hurry
        self._step = step
        self._describe = describe
        self._interval_s = interval_s
        self._reports = reports
        self._beats = 0
        self._beat_at = 0.0
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        self._stopping = False
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def run(self) -> None:
        """Returns when it was told to end and the last step is done."""
        self._report({"ready": True})
        while not self._stopping:
            self._step(self._progress)
            self._beat()
            self._wait()
        self._step(self._progress)

    def _stop(self, _signal: int, _frame: object) -> None:
        self._end()

    def _end(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._hurry()

    def _progress(self) -> None:
        if monotonic() - self._beat_at >= self._interval_s:
            self._beat()

    def _beat(self) -> None:
        self._beats += 1
        self._beat_at = monotonic()
        self._report({"beat": self._beats, **self._describe()})

    def _wait(self) -> None:
        ready, _, _ = select.select([sys.stdin, self._wake_read], [], [], self._interval_s)
        if sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096):
            self._end()

    def _report(self, message: Mapping[str, object]) -> None:
        if self._reports:
            with suppress(OSError):  # a supervisor that does not read must not stop the work
                os.write(_REPORTS, msgspec.json.encode(message) + b"\n")


def has_listener() -> bool:
    """Returns whether descriptor 3 is the supervisor's pipe; asked before anything else could be given that number."""
    try:
        mode = os.fstat(_REPORTS).st_mode
    except OSError:
        return False
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return False
    os.set_blocking(_REPORTS, False)
    return True


def first_line() -> bytes:
    """Returns the line on standard input with the configuration; what follows stays, for `StepProcess` to see."""
    with open(0, "rb", buffering=0, closefd=False) as stdin:  # unbuffered: `select` watches for its end
        return stdin.readline()
