"""What a worker died of: read from the page that it left, and told to the workers that live.

Only deaths that a run can have caused blame one: a signal that a fault of the process raises, a hang of its loop, and
the kernel's want of memory. A worker that somebody killed, or stopped, blames nobody. SIGBUS says, as a rule, that a
mapped file is shorter than it was, or that the disk cannot read it; data raises it where the stack overflows (macOS) or
where addresses have to be aligned. So what ran is suspected once, not refused; the siblings, which have mapped the same
file, are replaced, and while those that started before die of it, too, nobody is blamed.
"""

import asyncio
import logging
import re
import shutil
import signal
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final

from gateway.runtime.child_process import ChildProcess
from gateway.runtime.memory_kills import MemoryKills, count_kills
from gateway.serving.run_page import LOOP_SLOT, UnfinishedRun, VersionKey, page_path, unfinished_runs
from gateway.serving.run_quarantine import QuarantineFile, RunQuarantine
from gateway.serving.worker_lives import WorkerLives

_FAULTS: Final = frozenset(
    {
        *(signal.SIGABRT, signal.SIGFPE, signal.SIGILL),
        *(signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP),
    }
)
_WANT_OF_MEMORY: Final = "killed for want of memory"
_LOST_FILE: Final = "killed by SIGBUS (a mapped file that was cut short or cannot be read, or what ran)"
_UNPROVEN: Final = frozenset({_WANT_OF_MEMORY, _LOST_FILE})
_ROLL_EVERY_S: Final = 300.0  # at most, for the same reason
_FAULT_SUFFIX: Final = ".fault"
# How Python's fault handler names the thread that the signal reached.
_THREAD: Final = re.compile(rb"^Current thread 0x([0-9a-fA-F]+)", re.MULTILINE)
_log = logging.getLogger(__name__)


def fault_path(run_dir: Path, boot: str) -> Path:
    """Returns where the worker of this boot says which thread a signal ended it in."""
    return run_dir / "running" / (boot + _FAULT_SUFFIX)


def _nothing() -> None:
    """Does what is done where nobody wants to know."""


class PostMortem:
    """Examines every worker that has ended, and keeps the document that workers follow."""

    def __init__(
        self,
        run_dir: Path,
        *,
        hold_s: float,
        changed: Callable[[], None],
        files_changed: Callable[[], None] = _nothing,
        lives: int = 0,
    ) -> None:
        """Starts from nothing: what an earlier run of the gateway refused is tried once more. At most `lives` workers
        live at once whose deaths their siblings see. `files_changed` is called when a worker may have died of a file
        that it had mapped, for its siblings have mapped it, too; not again for some minutes."""
        self._run_dir = run_dir
        self._changed = changed
        self._files_changed = files_changed
        self._quarantine = RunQuarantine(hold_s)
        self._file = QuarantineFile(run_dir)
        self._memory_kills = MemoryKills(count_kills())
        self._lives: WorkerLives | None = None
        self._rolled_at = float("-inf")  # by the clock of the loop
        shutil.rmtree(run_dir / "running", ignore_errors=True)
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._lives = self._file.clear(lives)
        except OSError as error:
            _log.warning("what workers die of will not be refused: %s", error.strerror)

    def examine(self, child: ChildProcess) -> str:
        """Returns what the child died of and ran then, for people; "" if its end says all there is.

        Order: when this returns, no other worker runs it any more. One that hangs is examined before it is killed.
        """
        page = page_path(self._run_dir, child.settings.boot)
        fault = fault_path(self._run_dir, child.settings.boot)
        cause, runs = self._blamed(child, page, fault)
        # The kernel takes the largest process of a group, which need not be the one that wants too much.
        is_proven = cause not in _UNPROVEN
        for_memory = cause == _WANT_OF_MEMORY
        lines: list[str] = []
        if runs:
            now_s = monotonic()
            lines = self._quarantine.worker_died(runs, cause, now_s, is_proven=is_proven, for_memory=for_memory)
        for line in lines:
            _log.error("%s-%d (%d) was %s", child.settings.role, child.settings.slot, child.pid, line)
        # One that is silent may hang, and the kill be another's: it makes suspects, and clears nobody.
        cleared = self._clear({run.key for run in runs}) if for_memory and not child.hung else False
        if lines or cleared:
            self._write()
        # Its siblings hold back what its page shows until they can read what follows from it.
        if self._lives is not None and child.exited.is_set():
            self._lives.bury(child.settings.boot)
        for path in (page, fault):
            with suppress(OSError):
                path.unlink()
        return "; ".join(lines) or ("" if runs or child.hung else cause)

    def close(self) -> None:
        """Leaves no file. Order: when no worker is left."""
        with suppress(OSError):
            self._file.remove()
        shutil.rmtree(self._run_dir / "running", ignore_errors=True)

    def release(self, model: str) -> None:
        """Lets everything of the model run again: somebody loaded it."""
        if self._quarantine.release(model):
            _log.info("released from quarantine: model=%s", model)
            self._write()

    def expire(self) -> None:
        """Lets run again what was refused for long enough."""
        now = monotonic()
        if self._memory_kills.is_due(now):
            self._memory_kills.counted(count_kills(), now)
        # A process of another kind, or of another gateway in the group: nothing that workers run explains it.
        cleared = self._memory_kills.take_lapsed() > 0 and self._clear(())
        if self._quarantine.expire(now) or cleared:
            self._write()

    def _clear(self, keys: Collection[VersionKey]) -> bool:
        released = self._quarantine.killed_without(keys, monotonic())
        for key in released:
            _log.warning(
                "released from quarantine: model=%s version=%s: a process was killed for want of memory without it",
                *(key.model, key.version),
            )
        return bool(released)

    def _blamed(self, child: ChildProcess, page: Path, fault: Path) -> tuple[str, list[UnfinishedRun]]:
        number = -child.status
        if child.hung:
            if not child.exited.is_set():
                self._memory_kills.counted(count_kills(), monotonic())
                if self._memory_kills.explains_death():  # silent because the kernel is ending it, maybe
                    return _WANT_OF_MEMORY, unfinished_runs(page)
            return "killed because it hung", [run for run in unfinished_runs(page) if run.slot == LOOP_SLOT]
        if child.kill_reason or number <= 0:
            return "", []
        if number == signal.SIGBUS:
            return self._lost_file(child, _reached(unfinished_runs(page), fault))
        if number == signal.SIGKILL:
            self._memory_kills.counted(count_kills(), monotonic())
            return (_WANT_OF_MEMORY, unfinished_runs(page)) if self._memory_kills.explains_death() else ("", [])
        if number not in _FAULTS:
            return "", []
        return f"killed by {signal.Signals(number).name}", _reached(unfinished_runs(page), fault)

    def _lost_file(self, child: ChildProcess, runs: list[UnfinishedRun]) -> tuple[str, list[UnfinishedRun]]:
        """Returns what such a death is told as, and what it makes suspects of.

        One that started after the files were opened anew died of something else, or of a file that changed again.
        """
        knows_file = child.started_at <= self._rolled_at
        now_s = asyncio.get_running_loop().time()
        if runs and not knows_file and now_s >= self._rolled_at + _ROLL_EVERY_S:
            self._rolled_at = now_s
            self._files_changed()
        return (_told_lost_file(runs), []) if knows_file or not runs else (_LOST_FILE, runs)

    def _write(self) -> None:
        try:
            self._file.write(self._quarantine.versions)
        except OSError as error:
            _log.error("the quarantine was not written, workers do not know of it: %s", error.strerror)
        self._changed()


def _reached(runs: list[UnfinishedRun], fault: Path) -> list[UnfinishedRun]:
    """Returns the runs of the thread that the signal reached; all, where that is not known."""
    thread = _faulting_thread(fault)
    return [run for run in runs if run.thread == thread] or runs


def _told_lost_file(runs: Sequence[UnfinishedRun]) -> str:
    models = ", ".join(sorted({f"model={run.key.model} version={run.key.version}" for run in runs}))
    during = f" while it ran {models}" if models else ""
    return f"killed by SIGBUS{during}: a file that it had mapped was cut short, or cannot be read; no request is blamed"


def _faulting_thread(path: Path) -> int:
    with suppress(OSError):
        if thread := _THREAD.search(path.read_bytes()):
            return int(thread[1], 16)
    return 0
