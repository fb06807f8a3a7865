"""Versions that are loaded on demand: in memory while they are used, and while the host has room for them.

A version that nobody used yet, or that made room for others, is *cold*: listed, AVAILABLE and leased like any other,
its contract known from its trial, but without a session. Its calls wait in a queue of their own (`cold_queue`), the
first of them has it loaded, and the others wait for the same load. Versions that a route names, and those that its
previous revision named, are kept in memory.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from math import inf
from time import monotonic_ns
from typing import Final

from gateway.backoff import Backoff
from gateway.errors import FailedPrecondition, GatewayError, ResourceExhausted, Unavailable, VersionNotReady
from gateway.serving.candidate import Candidate, Loaded
from gateway.serving.lifecycle import Pipeline, reason_of
from gateway.serving.registry import OnVersion, VersionStatus
from gateway.serving.repository import Key
from gateway.serving.residence import LEAST_BYTES, Residence, Resident, room_for
from gateway.serving.session import Session
from gateway.serving.version import Version, VersionState
from gateway.serving.version_loads import LoadAttempt, VersionLoads

COLD: Final = "not in memory: loaded by the first request for it"
WAKING: Final = "not in memory: being loaded, as a request asked for it"
TICK_S: Final = 1.0
_LOOK_S: Final = 0.5  # between looks for room while calls wait for it
_RETRIES: Final = Backoff(first_s=1.0, longest_s=30.0)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Use:
    """What is known of a version's use. Units: seconds of the loop's clock."""

    candidate: Candidate
    seen: int = 0
    used_s: float = 0.0
    loaded_s: float = 0.0
    failures: int = 0
    failed_s: float = 0.0
    error: GatewayError | None = None


class DemandLoads(VersionLoads):
    """Holds the versions of this worker, those on demand among them; None of them are without a `residence`."""

    def __init__(
        self,
        threads: Executor,
        pipeline: Pipeline,
        *,
        residence: Residence | None,
        pinned_loaded: Callable[[str], None],
        on_available: OnVersion | None = None,
        on_ended: OnVersion | None = None,
    ) -> None:
        super().__init__(threads, pipeline, pinned_loaded=pinned_loaded, on_available=on_available, on_ended=on_ended)
        self._residence = residence
        self._required: dict[str, frozenset[str]] = {}
        self._rollback: dict[str, frozenset[str]] = {}  # what routes named before they named what they require
        self._uses: dict[Version, _Use] = {}
        self._warm: list[Version] | None = None  # those of them with a session; None: not known
        self._wakes: dict[Version, asyncio.Task[None]] = {}
        self._short: dict[Version, str] = {}  # those that wait for room, and what there is too little of
        self._granted: set[Version] = set()  # those that have found room, and are being loaded
        self._on_failed: Callable[[Version, GatewayError], None] | None = None
        self._counts = {"loaded": 0, "failed": 0, "no_room": 0, "unloaded": 0, "load_ns": 0}

    # ---- for requests ----

    def attach_failed(self, on_failed: Callable[[Version, GatewayError], None]) -> None:
        """Has `on_failed` called when a version that calls wait for could not be loaded."""
        self._on_failed = on_failed

    def wake(self, version: Version) -> None:
        """Begins to load a cold version, unless that is under way."""
        if version in self._wakes or not version.is_cold:
            return
        task = asyncio.create_task(self._wake(version), name=f"load on demand {version.model} {version.name}")
        self._wakes[version] = task
        task.add_done_callback(self._note_fault)
        self._notify(version)

    def delay(self, version: Version) -> GatewayError:
        """Returns why a cold version is not in memory yet, as an error for a call whose time is over."""
        named = f"model {version.model!r} version {version.name!r}"
        after_ms = max(1, version.load_ns // 1_000_000)
        short = self._short.get(version)
        if short is not None:
            return ResourceExhausted(
                f"{named} is not in memory, and waits for room: {short}; retry in {after_ms} ms",
                retry_after_ms=after_ms,
            )
        return Unavailable(
            f"{named} is not in memory and is still being loaded; retry in {after_ms} ms", retry_after_ms=after_ms
        )

    # ---- for operators ----

    @property
    def loads_on_demand(self) -> bool:
        """Returns whether versions that nothing names are loaded on demand."""
        return self._residence is not None

    def states(self, model: str | None = None) -> list[VersionStatus]:
        """Returns the status of every version; of a cold one the reason says so."""
        return [
            replace(status, reason=self._why_cold(status.model, status.version))
            if status.state is VersionState.AVAILABLE and not status.reason
            else status
            for status in super().states(model)
        ]

    def residence(self) -> Mapping[str, int]:
        """Returns how many versions with a session are in memory and how many are not, and what those in it need."""
        versions = [version for version in self._uses if version.state is VersionState.AVAILABLE]
        warm = [version for version in versions if not version.is_cold]
        return {
            "warm": len(warm),
            "cold": len(versions) - len(warm),
            "bytes": sum(map(self._size, warm)),
            "limit_bytes": 0 if self._residence is None else self._residence.limit_bytes,
        }

    def demand_counts(self) -> Mapping[str, int]:
        """Returns how loads on demand have ended, how many versions made room for others, and what the loads took."""
        return self._counts

    async def watch_use(self) -> None:
        """Notes which versions are used, and keeps their memory within the limit, for ever."""
        while True:
            self.note_use()
            await asyncio.sleep(TICK_S)

    def note_use(self) -> None:
        """Notes which versions were used since the last time, and unloads what is beyond the limit."""
        now_s = asyncio.get_running_loop().time()
        for version, use in self._uses.items():
            if version.uses != use.seen or version.leases:
                use.seen, use.used_s = version.uses, now_s
        for other in room_for(0, self._residents(), self._residence or Residence(), now_s).unload:
            self._cool(other)

    # ---- for the catalog ----

    def _starts_cold(self, key: Key) -> bool:
        """Returns whether a load of the version opens no session: nothing needs it, and no other content of it is in
        memory that it takes the place of.
        """
        if self._residence is None or self._is_kept(*key):
            return False
        served = self._available.get(key[0], {}).get(key[1])
        return served is None or served.is_cold

    async def _attempt(self, candidate: Candidate, *, again: bool = False) -> LoadAttempt:
        attempt = await super()._attempt(candidate, again=again)
        if self._residence is not None and attempt.loaded is not None and candidate.kind.has_file:
            self._uses[attempt.version] = _Use(replace(candidate, pin=attempt.loaded.digest))
            self._warm = None
        return attempt

    def _publish(self, version: Version, loaded: Loaded, fingerprint: str) -> None:
        use = self._uses.get(version)
        if use is not None:
            use.used_s = use.loaded_s = asyncio.get_running_loop().time()
        super()._publish(version, loaded, fingerprint)
        self._warm = None
        if use is not None and not version.is_cold:
            self.note_use()

    def _drop(self, version: Version, reason: str) -> None:
        self._forget_use(version)
        super()._drop(version, reason)

    def _fail(self, version: Version, reason: str, fingerprint: str) -> None:
        self._forget_use(version)
        super()._fail(version, reason, fingerprint)

    def _drained(self, version: Version) -> None:
        self._forget_use(version)
        super()._drained(version)

    def _forget_use(self, version: Version) -> None:
        self._uses.pop(version, None)
        self._warm = None

    def _require(self, model: str, names: frozenset[str]) -> None:
        """Notes what the model's route names from now on; what it named before is the target of a rollback."""
        before = self._required.get(model, frozenset())
        if before - names:
            self._rollback[model] = before
        if names:
            self._required[model] = names
        else:
            self._required.pop(model, None)
            self._rollback.pop(model, None)

    def _is_kept(self, model: str, name: str) -> bool:
        return name in self._required.get(model, ()) or name in self._rollback.get(model, ())

    async def _awake(self, keys: Iterable[Key]) -> None:
        """Returns when these versions are in memory. Raises: GatewayError, with the reason of the first that is not."""
        versions = [self._held[key].version for key in keys if key in self._held]
        for version in versions:
            if version.is_cold:
                use = self._uses.get(version)
                if use is not None:
                    use.failures = 0  # whoever asks so does not wait for a pause
                self.wake(version)
        tasks = [self._wakes[version] for version in versions if version in self._wakes]
        if tasks:
            await asyncio.wait(tasks)
        for version in versions:
            if version.is_cold and version.state is VersionState.AVAILABLE:
                use = self._uses.get(version)
                raise (use.error if use is not None else None) or self.delay(version)

    # ---- inside ----

    async def _wake(self, version: Version) -> None:
        use = self._uses[version]
        try:
            outcome = self._paused(use) or await self._loaded_again(version, use)
        finally:
            del self._wakes[version]
            self._short.pop(version, None)
            self._granted.discard(version)
        if isinstance(outcome, GatewayError):
            if outcome is not use.error:
                self._not_woken(version, use, outcome)
            if use.error is not None and self._on_failed is not None:
                self._on_failed(version, use.error)
            self._notify(version)
        else:
            self._woken(version, use, outcome)

    def _paused(self, use: _Use) -> GatewayError | None:
        """Returns what the last load failed with, while it is too early for the next one."""
        if use.error is None or isinstance(use.error, ResourceExhausted) or not use.failures:
            return None
        is_over = asyncio.get_running_loop().time() >= use.failed_s + _RETRIES.delay_s(use.failures)
        return None if is_over else use.error

    async def _loaded_again(self, version: Version, use: _Use) -> Loaded | GatewayError:
        try:
            await self._find_room(version)
            self._granted.add(version)
            begin_ns = monotonic_ns()
            loaded = await self._pipeline.load(use.candidate)
            version.load_ns = monotonic_ns() - begin_ns
        except GatewayError as error:
            return error
        except Exception:  # the supervisor of loads: whatever a file causes, the worker goes on serving
            logger.exception("load on demand failed: model=%s version=%s", version.model, version.name)
            return FailedPrecondition("internal error while loading, see the log")
        if loaded.digest != version.digest:
            self._release([loaded.session])
            return Unavailable("its content is no longer there")
        return loaded

    def _woken(self, version: Version, use: _Use, loaded: Loaded) -> None:
        if version.state not in (VersionState.AVAILABLE, VersionState.UNLOADING):  # it ended meanwhile
            self._release([loaded.session])
            return
        version.session, version.is_cold = loaded.session, False
        self._warm = None
        version.weights, version.shared_bytes = loaded.weights, loaded.shared_bytes
        use.used_s = use.loaded_s = asyncio.get_running_loop().time()
        use.failures, use.error = 0, None
        self._counts["loaded"] += 1
        self._counts["load_ns"] += version.load_ns
        if self._on_available is not None:
            self._on_available(version)
        logger.info("version in memory: model=%s version=%s", version.model, version.name)
        self._notify(version)

    def _not_woken(self, version: Version, use: _Use, error: GatewayError) -> None:
        """Notes why a load failed, for the calls that wait and those of the next while."""
        use.failures += 1
        use.failed_s = asyncio.get_running_loop().time()
        if isinstance(error, ResourceExhausted):
            self._counts["no_room"] += 1
            use.error = error
            return
        self._counts["failed"] += 1
        use.error = _refusal(version, error, _RETRIES.delay_s(use.failures))
        logger.warning(
            "load on demand failed: model=%s version=%s reason=%s", version.model, version.name, reason_of(error)
        )

    async def _find_room(self, version: Version) -> None:
        """Returns when the limit has room for the version; others have made it. A version that routes need has it.

        Raises: ResourceExhausted, where there can be none, or where nobody waits for it any more.
        """
        loop = asyncio.get_running_loop()
        residence = self._residence or Residence()
        while True:
            room = room_for(self._size(version), self._residents(but=version), residence, loop.time())
            for other in room.unload:
                self._cool(other)
            if room.wait_s == 0.0 or self._is_kept(version.model, version.name):
                return
            held = f", of which {room.held_bytes} for versions that routes need" if room.held_bytes else ""
            short = (
                f"it needs {self._size(version)} bytes, and this worker's share of model-memory-bytes is "
                f"{residence.limit_bytes}{held}"
            )
            if room.wait_s == inf:
                raise ResourceExhausted(
                    f"model {version.model!r} version {version.name!r} cannot be loaded: {short}; raise the limit, "
                    "or route to fewer versions",
                    retry_after_ms=int(residence.stay_s * 1000) or 1000,
                )
            self._short[version] = f"{short}, and others were loaded less than {residence.stay_s:g} s ago or run"
            if not version.leases:
                raise self.delay(version)
            await asyncio.sleep(min(room.wait_s, _LOOK_S))

    def _residents(self, but: Version | None = None) -> list[Resident[Version]]:
        """Returns the versions in memory, and those that are being loaded into it.

        A thousand calls that wait for room ask for it twice a second each: only those in memory are looked at.
        """
        if self._warm is None:
            self._warm = [version for version in self._uses if not version.is_cold]
        uses = [(version, self._uses[version]) for version in (*self._warm, *self._granted) if version in self._uses]
        return [
            Resident(
                version,
                self._size(version),
                use.used_s,
                use.loaded_s,
                is_kept=version.state is not VersionState.AVAILABLE or self._is_kept(version.model, version.name),
                is_used=version.leases > 0 or version.is_cold,
            )
            for version, use in uses
            if version is not but
            and (not version.is_cold or version in self._granted)
            and version.state in (VersionState.AVAILABLE, VersionState.UNLOADING)
        ]

    def _cool(self, version: Version) -> None:
        """Takes a version out of memory that no call holds; the next one has it loaded again."""
        sessions: list[Session | None] = [version.session]
        version.session, version.is_cold = None, True
        self._warm = None
        if self._on_available is not None:
            self._on_available(version)
        self._counts["unloaded"] += 1
        self._release(sessions)
        logger.info("version no longer in memory: model=%s version=%s", version.model, version.name)
        self._notify(version)

    def _size(self, version: Version) -> int:
        """Returns what counts for a version in memory: its trial's memory, of shared weights this worker's part."""
        workers = 1 if self._residence is None else self._residence.workers
        own = max(0, version.memory_bytes - version.shared_bytes)
        return max(own + version.shared_bytes // workers, LEAST_BYTES)

    def _why_cold(self, model: str, name: str) -> str:
        version = self._held[model, name].version
        use = self._uses.get(version)
        if not version.is_cold:
            return ""
        if version in self._wakes:
            return f"not in memory: waits for room: {self._short[version]}" if version in self._short else WAKING
        return COLD if use is None or use.error is None else f"not in memory: {use.error}"


def _refusal(version: Version, error: GatewayError, pause_s: float) -> GatewayError:
    """Returns what a call is told whose version could not be loaded."""
    if not error.retryable:
        return VersionNotReady(version.model, version.name, f"it could not be loaded on demand: {reason_of(error)}")
    return Unavailable(
        f"model {version.model!r} version {version.name!r} could not be loaded on demand: {reason_of(error)}",
        retry_after_ms=max(1, int(pause_s * 1000)),
    )
