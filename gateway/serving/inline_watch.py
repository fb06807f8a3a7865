"""Ends a run on the event loop that takes too long: nothing else of the worker happens until it is over."""

from threading import Event, Thread
from time import monotonic_ns, sleep
from typing import Final

from gateway.serving.session import Termination

LIMIT_NS: Final = 50_000_000
POLL_S: Final = 0.02
# Looks without a run between them, after which the thread sleeps until the next run.
IDLE_LOOKS: Final = 50


class InlineWatch:
    """A thread that looks every 20 ms; it sleeps while nothing runs.

    The loop calls `begin` and `end` around each run; both cost about 0.1 us.
    """

    def __init__(self) -> None:
        self._termination = Termination()
        self._began_ns = 0
        self._runs = 0
        self._fired = False
        self._asleep = True
        self._closed = False
        self._wake = Event()
        # Started here, not by the first run: that must not fail where the system starts no more threads.
        self._watchdog = Thread(target=self._look, name="inline-watch", daemon=True)
        self._watchdog.start()

    def begin(self) -> Termination:
        """Returns the handle that the run is to be given."""
        self._runs += 1
        self._began_ns = monotonic_ns()
        if self._asleep:
            self._wake.set()
        return self._termination

    def end(self) -> bool:
        """Returns whether the run was ended, or was about to be."""
        self._began_ns = 0
        if not self._fired:
            return False
        # The thread may still hold the old handle and stop it once more: the next run gets another one.
        self._termination = Termination()
        self._fired = False
        return True

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True
        self._wake.set()
        self._watchdog.join()

    def _look(self) -> None:
        idle = seen = 0
        while not self._closed:
            if self._asleep:
                self._wake.wait()
                self._wake.clear()
                self._asleep = False
                idle = 0
            else:
                sleep(POLL_S)
            runs, began_ns, termination = self._runs, self._began_ns, self._termination
            if began_ns and not self._fired and monotonic_ns() - began_ns > LIMIT_NS:
                self._fired = True
                termination.stop()
            idle = idle + 1 if runs == seen and not began_ns else 0
            seen = runs
            # A run that begins between the two looks at `_runs` may not have seen that the thread sleeps.
            self._asleep = idle >= IDLE_LOOKS
            if self._asleep and self._runs != runs:
                self._asleep = False
