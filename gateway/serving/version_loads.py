"""The loads of versions: begun on the loop, done on threads, published or recorded as failed."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from gateway.errors import FailedPrecondition, GatewayError, Unavailable
from gateway.serving.candidate import Candidate, Loaded
from gateway.serving.lifecycle import Pipeline, reason_of
from gateway.serving.refused_content import refused_content
from gateway.serving.registry import OnVersion, Registry, VersionStatus
from gateway.serving.replacement import RecordReplacement, Replacement, recorded
from gateway.serving.repository import Key
from gateway.serving.session import Session
from gateway.serving.version import Version, VersionState
from gateway.serving.view import EMPTY_VIEW

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadAttempt:
    """Holds how the load of one version ended; nothing is published yet."""

    version: Version
    fingerprint: str
    loaded: Loaded | None = None
    error: GatewayError | None = None


class VersionLoads(Registry):
    """Holds the versions of this worker and the loads that are under way."""

    def __init__(
        self,
        threads: Executor,
        pipeline: Pipeline,
        *,
        pinned_loaded: Callable[[str], None],
        on_available: OnVersion | None = None,
        on_ended: OnVersion | None = None,
    ) -> None:
        """`pinned_loaded` is told of which model a version was loaded that a route names."""
        super().__init__(threads, on_available=on_available, on_ended=on_ended)
        self._pipeline = pipeline
        self._pinned_loaded = pinned_loaded
        self._view = EMPTY_VIEW
        self._record: RecordReplacement | None = None
        self._loads: dict[Key, asyncio.Task[None]] = {}
        self._first: set[Key] | None = None  # what the first look found; None before it
        self._on_trial: set[Key] = set()  # versions on trial: the host does not know yet whether they are good
        # Of the loads that a start waits for: those that have neither ended nor begun a trial; and when there are none.
        self._undecided: set[Key] = set()
        self._decided: asyncio.Future[None] | None = None
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def states(self, model: str | None = None) -> list[VersionStatus]:
        """Returns the status of every version; of one that is being copied the reason says how far it is."""
        return [
            replace(status, reason=self._pipeline.progress(status.model, status.version))
            if status.state is VersionState.LOADING and not status.reason
            else status
            for status in super().states(model)
        ]

    def aliases(self) -> Mapping[str, tuple[Mapping[str, str], float]]:
        """Returns by model the versions that aliases of its source name, and when (monotonic) they were looked at."""
        return {model: (folder.aliases, folder.seen_s) for model, folder in self._view.folders.items()}

    def is_loading(self, model: str) -> bool:
        """Returns whether a load of one of the model's versions has begun, and has not ended."""
        return any(key[0] == model for key in self._loads) or any(held.loading for held in self._of_model(model))

    def record_replacements(self, record: RecordReplacement) -> None:
        """Has `record` called before other content takes the place of what a version serves; it raises a GatewayError
        where that must wait.
        """
        self._record = record

    def _start_load(self, key: Key, candidate: Candidate) -> None:
        task = asyncio.create_task(self._load_one(key, candidate), name=f"load {key[0]} {key[1]}")
        self._loads[key] = task
        task.add_done_callback(self._note_fault)

    def _note_fault(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._fault.done():
            self._fault.set_exception(error)

    async def _load_one(self, key: Key, candidate: Candidate) -> None:
        try:
            if await self._serves_already(key, candidate):
                return
            attempt = await self._attempt(candidate)
            if attempt.loaded is None:
                return
            replacement = self._replacement(attempt)
            if replacement is not None and self._record is not None:
                try:
                    await recorded(replacement, self._record, self._held[key].version)
                except asyncio.CancelledError:
                    self._drop(attempt.version, "the load was cancelled")
                    raise
            pin = self._view.intents.pins.get(key[0], {}).get(key[1], attempt.loaded.digest)
            if key[0] in self._view.intents.unloaded:
                self._drop(attempt.version, "unloaded")
            elif pin != attempt.loaded.digest:
                self._drop(attempt.version, "a route names the version meanwhile: its content is immutable")
            else:
                self._publish(attempt.version, attempt.loaded, attempt.fingerprint)
                self._end_start(key)  # what lies in the repository now says nothing about what serves
                refusal = await refused_content(self._pipeline, candidate)
                if attempt.version.state is VersionState.AVAILABLE:
                    attempt.version.reason = refusal
                if candidate.pin:  # labels and configuration may be new
                    self._pinned_loaded(key[0])
        finally:
            del self._loads[key]
            self._end_start(key)

    def _end_start(self, key: Key) -> None:
        """Notes that a start need not wait for the version any more: it serves, or has failed."""
        self._decide(key)
        if self._first:
            self._first.discard(key)
            if not self._first and key in self._held:
                self._notify(self._held[key].version)  # this worker is ready

    def _replacement(self, attempt: LoadAttempt) -> Replacement | None:
        """Returns what the load is about to replace; None where no other content serves under the name."""
        model, name = attempt.version.model, attempt.version.name
        served = self._available.get(model, {}).get(name)
        if attempt.loaded is None or served is None or served.digest == attempt.loaded.digest:
            return None
        return Replacement(model, name, served.digest, attempt.loaded.digest, attempt.fingerprint)

    async def _serves_already(self, key: Key, candidate: Candidate) -> bool:
        """Returns whether the serving version has the same content: its files were touched or copied, not changed."""
        entry = self._held.get(key)
        if entry is None or entry.version.state is not VersionState.AVAILABLE:
            return False
        entry.loading = True
        try:
            identity = await self._pipeline.identity(candidate)
        except GatewayError:
            return False  # the load says why
        finally:
            entry.loading = False
        if identity != entry.identity or entry.version.state is not VersionState.AVAILABLE:
            return False
        entry.serving = candidate.fingerprint
        entry.version.reason = await refused_content(self._pipeline, candidate)
        return True

    async def _attempt(self, candidate: Candidate, *, again: bool = False) -> LoadAttempt:
        """Loads the version on a thread; a failure is recorded, a success is not published yet."""
        key = (candidate.model, candidate.version)
        version = self._begin(key)

        def note_trial() -> None:
            self._on_trial.add(key)
            self._decide(key)

        try:
            cold = self._starts_cold(key)
            loaded = await self._pipeline.load(candidate, again=again, cold=cold, on_trial=note_trial)
        except GatewayError as error:
            self._fail(version, reason_of(error), "" if error.retryable else candidate.fingerprint)
            return LoadAttempt(version, candidate.fingerprint, error=error)
        except asyncio.CancelledError:
            self._drop(version, "the load was cancelled")
            raise
        except Exception:  # the supervisor of loads: whatever a file causes, the worker goes on serving
            logger.exception("load failed: model=%s version=%s", candidate.model, candidate.version)
            fault = FailedPrecondition("internal error while loading, see the log")
            self._fail(version, str(fault), candidate.fingerprint)
            return LoadAttempt(version, candidate.fingerprint, error=fault)
        finally:
            self._on_trial.discard(key)
        return LoadAttempt(version, candidate.fingerprint, loaded)

    def _starts_cold(self, key: Key) -> bool:
        """Returns whether a load of the version opens no session (`gateway.serving.demand_loads`)."""
        return False

    def _decide(self, key: Key) -> None:
        """Notes that the version's load has ended, or has begun a trial, which only its end ends."""
        self._undecided.discard(key)
        if not self._undecided and self._decided is not None and not self._decided.done():
            self._decided.set_result(None)

    async def _settle(self, keys: Iterable[Key], *, timeout_s: float | None = None) -> None:
        """Waits until the loads of these versions that are under way have ended, or the time is over."""
        tasks = [self._loads[key] for key in keys if key in self._loads]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    def _abandon(self, attempts: list[LoadAttempt], reason: str, *, may_return: bool) -> None:
        sessions: list[Session | None] = []
        for attempt in attempts:
            if attempt.loaded is not None:
                self._fail(attempt.version, reason, "" if may_return else attempt.fingerprint)
                sessions.append(attempt.loaded.session)
        attempts.clear()
        self._release(sessions)


def raise_first_failure(model: str, attempts: Iterable[LoadAttempt]) -> None:
    """Raises: FailedPrecondition or Unavailable, with the reason of the first load that failed."""
    for attempt in attempts:
        if attempt.error is not None:
            kind = Unavailable if attempt.error.retryable else FailedPrecondition
            raise kind(f"failed to load {model!r}: version {attempt.version.name}: {attempt.version.reason}")
