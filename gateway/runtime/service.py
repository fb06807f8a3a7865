"""One role of the gateway that is kept alive: whichever process plays it at the moment."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from enum import Enum
from time import time

from gateway.byte_size import rounded_bytes
from gateway.runtime.child import NO_SOCKETS, Settings
from gateway.runtime.child_process import ChildProcess
from gateway.runtime.liveness import Timing, overweight
from gateway.runtime.post_mortem import PostMortem

_log = logging.getLogger(__name__)


class ServiceState(Enum):
    """WAITING: dead, and its next start is put off. STOPPED: dead for good."""

    STARTING = "STARTING"
    READY = "READY"
    WAITING = "WAITING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"


class Service:
    """Keeps a child of one role running until it is stopped.

    `probe` is for a program that does not speak the protocol of children: it returns when the program serves, and such
    a child is not expected to beat. `opening` makes the line on a child's standard input from its settings.
    `post_mortem` finds out what its children died of. `sockets` are the listening sockets that they all
    share, by their options.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        settings: Callable[[], Settings],
        *,
        timing: Timing,
        changed: Callable[[], None],
        opening: Callable[[Settings], str] = Settings.to_json,
        probe: Callable[[], Awaitable[None]] | None = None,
        post_mortem: PostMortem | None = None,
        sockets: Mapping[str, int] = NO_SOCKETS,
    ) -> None:
        self._sockets = sockets
        self._command = command
        self._settings = settings
        first = settings()
        self.role, self.slot = first.role, first.slot
        self._timing = timing
        self._changed = changed
        self._opening = opening
        self._probe = probe
        self._post_mortem = post_mortem
        self._children: set[ChildProcess] = set()
        self._current: ChildProcess | None = None
        self._standby: ChildProcess | None = None  # gets ready while the current one is silent
        self._dropping: set[asyncio.Task[None]] = set()
        self._replacing = asyncio.Lock()
        self._swapped = asyncio.Event()
        self._stop = asyncio.Event()
        self._quick_deaths = 0
        self._died = ""  # the boot that died last, until another serves in its place
        self.state = ServiceState.STARTING
        self.restarts = 0
        self.recycled = 0
        self.reason = ""
        self.since = time()
        self.was_ready = asyncio.Event()

    @property
    def name(self) -> str:
        return f"{self.role}-{self.slot}"

    async def run(self) -> None:
        """Returns when the service was stopped and its last process has ended."""
        while not self._stop.is_set():
            child = self._take_standby() or self._start()
            if child is None:
                await self._wait_before_restart()
                continue
            self._current = child
            self._enter(ServiceState.STARTING)
            while await self._watch(child):
                child = self._current
        self._enter(ServiceState.STOPPED)

    async def recycle(self, limit_bytes: int) -> None:
        """Replaces the process if it holds more memory than that: the old one serves until the new one does."""
        child = self._current
        if child is None or self.state is not ServiceState.READY:
            return
        held = child.resident_bytes()
        if not overweight(held, child.served_s(), limit_bytes, self._timing):
            return
        reason = (
            f"held {rounded_bytes(held)} of memory, more than the {rounded_bytes(limit_bytes)} of --worker-memory-bytes"
        )
        _log.warning("%s (%d) %s: it is replaced", self.name, child.pid, reason)
        if await self.roll(f"recycled: the one before it {reason}"):
            self.recycled += 1
            self._changed()

    async def roll(self, reason: str = "restarted on request") -> bool:
        """Starts a new process in place of the old one, which finishes its work; returns False if the new one failed.

        Order: the old process serves until the new one is ready, and goes on if that never happens.
        """
        async with self._replacing:
            old = self._current
            if old is None or old.exited.is_set() or self._stop.is_set():
                return True  # it is about to be started afresh anyway
            new = self._start()
            if new is None:
                return False
            await self._first_of(new.ready, new.exited)
            if new.exited.is_set():
                _log.error("%s: the replacement (%d) %s; %d goes on", self.name, new.pid, new.ending, old.pid)
                self.reason = f"replacement {new.ending}"
                self._changed()
                return False
            self._current = new
            self._swapped.set()
            self._enter(ServiceState.READY, reason=reason)
        await old.stop(self._grace_s())
        self._examine(old)
        self._children.discard(old)
        return True

    async def stop(self, limit_s: float) -> None:
        """Ends all its processes and starts none again."""
        self._stop.set()
        self._enter(ServiceState.STOPPING)
        async with asyncio.TaskGroup() as group:
            for child in list(self._children):
                group.create_task(child.stop(limit_s))

    async def finish(self, limit_s: float) -> None:
        """Stops it as `stop` does. Where its process was dead, or dies of it, one more does the work that is left.
        One that somebody has halted (SIGSTOP, a debugger) would only wait until there is no time left: it is killed.

        Order: one that starts is not told to stop before it is ready: it would die of that, and its start, which takes
               seconds on a busy machine, be for nothing. With the limit over, what is left waits for the next start.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        stopped = [child for child in self._children if not child.exited.is_set()]
        self._stop.set()
        self._enter(ServiceState.STOPPING)
        for child in stopped:
            if child.is_stopped():
                child.kill("had been halted by somebody")
        async with asyncio.TaskGroup() as group:
            for child in stopped:
                group.create_task(self._stop_once_ready(child, end))
        failed = [child for child in stopped if child.status != 0]
        if (stopped and not failed) or (self._current is None) or loop.time() >= end:
            return
        for child in failed:
            _log.error("%s (%d) %s as it was to stop: another does its last work", self.name, child.pid, child.ending)
            self._died = child.settings.boot
        last = self._start(last=True)
        if last is None:
            return
        await self._stop_once_ready(last, end)
        if last.status != 0:
            _log.error("%s (%d) %s: what is left waits for the next start", self.name, last.pid, last.ending)
            self.reason = last.ending

    async def _stop_once_ready(self, child: ChildProcess, end: float) -> None:
        try:
            async with asyncio.timeout_at(end):
                await self._first_of(child.ready, child.exited)
        except TimeoutError:
            pass
        await child.stop(max(0.0, end - asyncio.get_running_loop().time()))

    def kill(self, reason: str) -> None:
        """Its processes end at once; it is not started again."""
        self._stop.set()
        for child in list(self._children):
            child.kill(reason)

    def check(self, now: float, late_s: float) -> None:
        """Kills what hangs. `late_s`: for how long the supervisor itself did not run, and so heard nothing."""
        if self._probe is not None or self._stop.is_set():
            return
        for child in list(self._children):
            if child.exited.is_set():
                continue  # it is silent because it is dead: who watches it may wait for a replacement to be ready
            if late_s > 0:
                child.heartbeat.excuse(late_s)
            if self._timing.forgives_waits and child.heartbeat.silent(now, self._timing):
                child.forgive_waits(now)
            if child.heartbeat.hung(now, self._timing) and not child.kill_reason:
                silent_s = now - child.heartbeat.heard_at
                _log.error("%s (%d) has been silent for %.1f s: killed", self.name, child.pid, silent_s)
                # Examined before it dies: its clients know of the death at once, and may send the same request again.
                child.hung = not child.is_stopped()
                child.findings = self._examine(child) if child.hung else ""
                child.kill(f"hung: silent for {silent_s:.1f} s")

    @property
    def stands_by(self) -> bool:
        """Returns whether a successor gets ready, or is."""
        return self._standby is not None

    def suspect(self, now: float) -> bool:
        """Returns whether its process may turn out to hang."""
        child = self._current
        return (
            self._probe is None
            and child is not None
            and self.state is ServiceState.READY
            and not child.exited.is_set()
            and not self._replacing.locked()
            and child.heartbeat.suspect(now, self._timing)
        )

    def stand_by(self) -> None:
        """Starts a successor, which serves as soon as the silent process is given up, and goes if that is heard again.

        Order: while `suspect`, and none stands by.
        """
        assert self._current is not None
        _log.warning("%s (%d) is silent: a successor gets ready", self.name, self._current.pid)
        self._standby = self._start(stands_by_for=self._current.settings.boot)

    def drop_standby(self, now: float) -> bool:
        """Ends the successor if nobody needs it; returns whether it was so."""
        standby, child = self._standby, self._current
        if standby is None:
            return False
        if standby.exited.is_set():
            self._standby = None
            self._children.discard(standby)
            _log.error("%s: the successor that got ready (%d) %s", self.name, standby.pid, standby.ending)
            return True
        if child is not None and not child.kill_reason and not child.heartbeat.suspect(now, self._timing):
            self._standby = None
            _log.info("%s (%d) is heard again: its successor is not needed", self.name, child.pid)
            task = asyncio.create_task(self._drop(standby))
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)
            return True
        return False

    async def _drop(self, child: ChildProcess) -> None:
        await child.stop(self._grace_s())
        self._examine(child)
        self._children.discard(child)

    def _take_standby(self) -> ChildProcess | None:
        child, self._standby = self._standby, None
        if child is None or child.exited.is_set():
            return None
        child.relieve()
        return child

    def describe(self) -> dict[str, object]:
        """Returns what the state file says of it."""
        child = self._current
        return {
            "role": self.role,
            "slot": self.slot,
            "state": self.state.value,
            "pid": child.pid if child is not None and not child.exited.is_set() else 0,
            "boot": child.settings.boot if child is not None else "",
            "restarts": self.restarts,
            "recycled": self.recycled,
            "reason": self.reason,
            "since": self.since,
        }

    def _start(self, *, stands_by_for: str = "", last: bool = False) -> ChildProcess | None:
        before = stands_by_for or self._died
        try:
            settings = replace(self._settings(), predecessor=before, stands_by=bool(stands_by_for), last=last)
            loaded = self._post_mortem.release if self._post_mortem is not None else None
            opening = self._opening(settings)
            child = ChildProcess(self._command, settings, opening, loaded=loaded, sockets=self._sockets)
        except OSError as error:
            if stands_by_for:
                _log.error("%s: no successor can be started: %s", self.name, error.strerror)
                return None
            self._quick_deaths += 1
            self._enter(ServiceState.WAITING, reason=f"cannot be started: {error.strerror}")
            _log.error("%s cannot be started: %s", self.name, error.strerror)
            return None
        self._children.add(child)
        return child

    async def _watch(self, child: ChildProcess) -> bool:
        """Waits until the child has ended; True if another has taken its place, which is then to be watched."""
        await self._until_ready(child)
        await self._first_of(child.exited, self._swapped)
        async with self._replacing:  # a replacement that is on its way decides first
            if self._current is not child:
                self._swapped.clear()
                return True
            self._children.discard(child)
            if not self._stop.is_set():
                self._count_death(child)
        if not self._stop.is_set():
            await self._wait_before_restart()
        return False

    async def _until_ready(self, child: ChildProcess) -> None:
        if self._probe is None:
            await self._first_of(child.ready, child.exited)
        else:
            async with asyncio.TaskGroup() as group:
                probing = group.create_task(self._probing(child, self._probe))
                await self._first_of(child.ready, child.exited)
                probing.cancel()
        if child.ready.is_set() and not child.exited.is_set() and not self._stop.is_set():
            self._died = ""
            self._enter(ServiceState.READY)
            _log.info("%s (%d) is ready", self.name, child.pid)
        if child.ready.is_set():
            self.was_ready.set()

    async def _probing(self, child: ChildProcess, probe: Callable[[], Awaitable[None]]) -> None:
        await probe()
        child.mark_ready()

    def _count_death(self, child: ChildProcess) -> None:
        if child.served_s() >= self._timing.healthy_s:
            self._quick_deaths = 0
        self._quick_deaths += 1
        self._died = child.settings.boot
        self.restarts += 1
        findings = self._examine(child) or child.findings
        self._enter(ServiceState.WAITING, reason=findings or child.ending)
        _log.error("%s (%d) %s after serving %.1f s", self.name, child.pid, child.ending, child.served_s())

    def _examine(self, child: ChildProcess) -> str:
        return self._post_mortem.examine(child) if self._post_mortem is not None else ""

    async def _wait_before_restart(self) -> None:
        delay_s = self._timing.delay_s(self._quick_deaths)
        if delay_s:
            _log.warning("%s starts again in %.2f s (%d quick deaths)", self.name, delay_s, self._quick_deaths)
        try:
            async with asyncio.timeout(delay_s):
                await self._stop.wait()
        except TimeoutError:
            pass

    async def _first_of(self, *events: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _grace_s(self) -> float:
        return self._settings().config.process.grace_seconds + 2.0

    def _enter(self, state: ServiceState, reason: str | None = None) -> None:
        self.state = state
        self.since = time()
        if reason is not None:
            self.reason = reason
        self._changed()
