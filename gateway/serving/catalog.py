"""The catalog: decides which versions of which models are loaded, and loads and unloads them.

Pure functions (`gateway.serving.repository`) decide what to load: from the repository on disk, the versions that routes
name, and what operators loaded and unloaded by hand. This module calls them and acts on the answer. Scans and loads run
on threads; everything that requests can see changes on the loop only.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from gateway.errors import FailedPrecondition, GatewayError, Unavailable, UnknownModel, UnknownVersion, VersionNotReady
from gateway.serving.config_source import ConfigSource, parse_json
from gateway.serving.copy_upkeep import CopyUpkeep
from gateway.serving.declaration import Describe
from gateway.serving.intents import IntentStore
from gateway.serving.lifecycle import Pipeline
from gateway.serving.model_config import check_model_name, check_version_name
from gateway.serving.model_kind import ModelKind
from gateway.serving.pinned_versions import PinnedVersions
from gateway.serving.refused_content import refused_content
from gateway.serving.registry import OnVersion, VersionStatus
from gateway.serving.repository import CatalogChange, Key, ModelRepository, PlannedChange, plan, serves_again
from gateway.serving.repository_reader import FIRST_LOOK_S
from gateway.serving.residence import Residence
from gateway.serving.version import VersionState
from gateway.serving.version_loads import LoadAttempt, raise_first_failure
from gateway.serving.view import RepositoryView, StepPin
from loaders.store import ContentStore

__all__ = ["Catalog", "VersionStatus"]

logger = logging.getLogger(__name__)


class Catalog(PinnedVersions):
    """Holds the versions of this worker. It is made and used on one loop; `run` keeps it up to date."""

    def __init__(
        self,
        repository: ModelRepository,
        pipeline: Pipeline,
        intents: IntentStore,
        *,
        store: ContentStore | None = None,
        residence: Residence | None = None,
        first_look_s: float = FIRST_LOOK_S,
        on_available: OnVersion | None = None,
        on_ended: OnVersion | None = None,
    ) -> None:
        """With a `residence` versions that nothing names are loaded on demand."""
        super().__init__(
            repository,
            pipeline,
            intents,
            store=store,
            residence=residence,
            first_look_s=first_look_s,
            on_available=on_available,
            on_ended=on_ended,
        )
        self.copies = CopyUpkeep(store, self._reader, self._digests, pipeline.keep_prepared)
        self._looking = asyncio.Lock()
        self._doubted: frozenset[Key] = frozenset()
        self._has_looked = False  # blindly at least: the intents are known
        self._trouble = ""

    def _digests(self) -> set[str]:
        """Returns the digests of the versions that are loaded, or may be at any time."""
        versions = [entry.version for entry in self._held.values()]
        return {version.digest for version in versions if version.session is not None or version.is_cold}

    def describe_by(self, kind: ModelKind, describe: Describe) -> None:
        """As `Pipeline.describe_by`."""
        self._pipeline.describe_by(kind, describe)

    # ---- for operators ----

    def models(self) -> list[str]:
        """Returns every model of the repository, loaded or not, and every model that is still held."""
        return sorted(self._view.folders.keys() | {key[0] for key in self._held})

    def passed_over(self) -> Mapping[str, str]:
        """Returns the repository entries that cannot serve as a version: their paths, each with the reason."""
        return self._view.passed_over

    def origin(self, model: str) -> str:
        """Returns the URI of the repository that has the model; "" where none has it any more."""
        folder = self._view.folders.get(model)
        return "" if folder is None else folder.origin

    def step_pins(self) -> Iterator[StepPin]:
        """Yields the steps of ensembles that name a version by its number."""
        return self._view.step_pins()

    @property
    def trouble(self) -> str:
        """Returns why the last scan could not read the repository, "" if it could. A failed scan changes nothing."""
        return self._trouble

    def ready(self) -> bool:
        """Returns whether every version that was there at the start has either loaded or failed."""
        return self._first is not None and not self._first

    def routed(self, model: str) -> list[str]:
        """Returns the versions of the model that a route names and that serve."""
        return sorted(self._required.get(model, frozenset()) & self._available.get(model, {}).keys())

    async def load(self, model: str, config_override: str | None = None) -> None:
        """Loads the model's versions from the files on disk now: all of them or none.

        `config_override` (JSON) replaces config.pbtxt from now on; without it config.pbtxt holds again.

        Raises: UnknownModel, InvalidArgument (the override), FailedPrecondition naming the version and the reason,
                Unavailable (disk). After an error the versions that served before go on serving.
        """
        check_model_name(model)
        override = None if config_override is None else parse_json(config_override)
        if not await self._reader.has(model):
            raise UnknownModel(model)
        await self._operations.finish(self._load_model(model, override, config_override))

    async def unload(self, model: str) -> None:
        """Unloads every version of the model; each ends with its last request. The unload outlives a restart.

        Raises: UnknownModel, Unavailable (disk).
        """
        check_model_name(model)
        if model not in self._view.folders and not self._knows(model):
            raise UnknownModel(model)
        await self._operations.finish(self._unload_model(model))

    async def require(self, model: str, versions: Iterable[str]) -> None:
        """Makes the versions AVAILABLE, and keeps them so until the next call whatever the version policy says.

        Versions that only the previous call named are kept for two more polls: requests that were decided before the
        caller swapped its rules may still arrive.

        Raises: UnknownModel, UnknownVersion, VersionNotReady (failed, or unloaded by hand), InvalidArgument. After an
                error the previous call still holds.
        """
        names = frozenset(versions)
        if self.require_available(model, names):
            if self._pinning is not None:
                await asyncio.shield(self._pinning)
            return
        check_model_name(model)
        for name in names:
            check_version_name(name)
        await self._operations.finish(self._require_versions(model, names))

    def retry(self, model: str) -> None:
        """Loads again, now, what failed of the model: what it waited for may be there."""
        if self._operations.is_locked(model):
            return
        for key, fingerprint in self._view.wishes(self._required).items():
            held = self._held.get(key) if key[0] == model else None
            if held is not None and not held.loading and key not in self._loads and held.failed == fingerprint != "":
                self._start_load(key, self._view.candidate(key, fingerprint))

    # ---- the loop ----

    async def poll(self) -> None:
        """Scans the repository once and acts on it; returns when every load has ended."""
        await self._settle(await self._step())

    async def start(self, patience_s: float, *, restarted: bool = False) -> None:
        """Scans for the first time; returns when every version serves or has failed.

        After `patience_s` it no longer waits for versions on trial (those that the host does not know to be good yet).

        With `restarted` versions on trial do not keep this worker from being ready: its siblings lack them, too.
        """
        loop = asyncio.get_running_loop()
        begun = await self._step()
        until = loop.time() + patience_s
        self._undecided = {key for key in begun if key in self._loads} - self._on_trial
        if self._undecided:
            self._decided = loop.create_future()
            await self._decided
        on_trial = [key for key in begun if key in self._on_trial]
        await self._settle(on_trial, timeout_s=max(0.0, until - loop.time()))
        if restarted and self._first is not None:
            self._first -= self._on_trial

    async def run(self, poll_seconds: float) -> None:
        """Scans the repository for ever; a slow load does not delay the next scan.

        What nobody has seen yet is looked at again after the patience of a first look at the latest: until then this
        worker is not ready.

        Raises: an unexpected error only, which is a fault in this program.
        """
        while not self._fault.done():
            await self._step()
            is_seen = self._first is not None
            pause_s = poll_seconds if is_seen else min(poll_seconds, self._reader.first_look_s)
            await asyncio.wait((self._fault,), timeout=pause_s)
        self._fault.result()

    async def close(self) -> None:
        """Stops all loads and drops every loaded version without waiting for its leases."""
        tasks = [*self._loads.values(), *self._wakes.values(), *self._operations.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pipeline.aclose()
        self._reader.close()

    async def _step(self) -> list[Key]:
        """Returns the keys of the versions whose loads began."""
        async with self._looking:
            try:
                self._view = await self._reader.next_look()
            except FailedPrecondition as error:
                if str(error) != self._trouble:
                    logger.error("everything stays as it is: %s", error)
                self._trouble = str(error)
                return []
            if self._trouble != self._view.trouble:
                if self._view.trouble:
                    logger.error("its models stay as they are: %s", self._view.trouble)
                else:
                    logger.info("the model repository can be read again")
            self._trouble = self._view.trouble
            if not self._has_looked:  # what routes named before a restart is what a rollback leads to
                self._has_looked = True
                self._rollback = {model: frozenset(pins) for model, pins in self._view.intents.pins.items()}
            begun = self._act(self._view)
        if self._first is None and not self._view.is_blind:
            self._first = set(begun)
        return begun

    def _act(self, view: RepositoryView) -> list[Key]:
        wishes = view.wishes(self._required)
        actions = [action for action in plan(wishes, self._presences()) if not self._operations.is_locked(action.model)]
        doubted = frozenset((action.model, action.version) for action in actions if action.ends)
        for action in actions:
            key = (action.model, action.version)
            if action.change is CatalogChange.REVIVE:
                self._revive(key)
            elif action.ends and (key in self._doubted or action.model in view.intents.unloaded):
                self._end(action, view)
        self._doubted = doubted
        for model in view.intents.unloaded & view.folders.keys():
            for version in view.folders[model].versions:
                self._note_unloaded((model, version))
        loads = [(action.model, action.version) for action in actions if action.change is CatalogChange.LOAD]
        for key in loads:
            if key not in self._loads:  # of one that serves the repository's present content may still be read
                self._start_load(key, view.candidate(key, wishes[key]))
        return loads

    def _end(self, action: PlannedChange, view: RepositoryView) -> None:
        key = (action.model, action.version)
        if action.change is CatalogChange.RETIRE:
            self._retire(key, view.why_ended(key))
        elif not (view.has(key) and action.model in view.intents.unloaded):
            self._forget(key)
        else:
            self._retire(key, "unloaded")

    # ---- by hand, and for routes ----

    async def _load_model(self, model: str, override: ConfigSource | None, text: str | None) -> None:
        async with self._operations.lock(model):
            await self._settle([key for key in self._loads if key[0] == model])
            view = await self._reader.look(lambda intents: intents.with_load(model, text), model, override)
            folder = view.folders.get(model)
            if folder is None:
                raise UnknownModel(model)
            if folder.error and override is None:
                if folder.is_unread:
                    raise Unavailable(f"failed to load {model!r}: {folder.error}")
                raise FailedPrecondition(f"failed to load {model!r}: {folder.error}")
            wishes = {key: fingerprint for key, fingerprint in view.wishes(self._required).items() if key[0] == model}
            if not any(wishes.values()):
                raise FailedPrecondition(f"failed to load {model!r}, no version is available")
            attempts = await self._attempt_all(view, wishes)
            try:
                raise_first_failure(model, attempts)
                for replacement in filter(None, map(self._replacement, attempts)):
                    if self._record is not None:
                        await self._record(replacement)
                changed = self._reader.change_intents(lambda intents: intents.with_load(model, text))
                self._view = replace(view, intents=await changed)
            except GatewayError as error:
                self._abandon(attempts, f"dropped, because the load failed: {error}", may_return=error.retryable)
                raise
            for attempt in attempts:
                if attempt.loaded is not None:
                    self._publish(attempt.version, attempt.loaded, attempt.fingerprint)
            for key in [key for key in self._held if key[0] == model and key not in wishes]:
                self._retire(key, "not selected by the version policy")
            await self._awake(wishes)

    async def _attempt_all(self, view: RepositoryView, wishes: Mapping[Key, str]) -> list[LoadAttempt]:
        """Tries to load every wanted version that does not serve with exactly these files and this configuration."""
        candidates = []
        for key, fingerprint in wishes.items():
            held = self._held.get(key)
            if held is not None and held.serving == fingerprint and held.version.state is VersionState.UNLOADING:
                self._revive(key)
            elif fingerprint and (held is None or held.serving != fingerprint):
                candidates.append(view.candidate(key, fingerprint))
        for candidate in [view.candidate(key, fingerprint) for key, fingerprint in wishes.items() if fingerprint]:
            refusal = await refused_content(self._pipeline, candidate)
            if refusal:
                raise FailedPrecondition(f"failed to load {candidate.model!r}: version {candidate.version}: {refusal}")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._attempt(candidate, again=True)) for candidate in candidates]
        return [task.result() for task in tasks]

    async def _unload_model(self, model: str) -> None:
        intents = await self._reader.change_intents(lambda intents: intents.with_unload(model))
        self._view = replace(self._view, intents=intents)
        for key in [key for key in self._held if key[0] == model]:
            self._retire(key, "unloaded")

    async def _require_versions(self, model: str, names: frozenset[str]) -> None:
        async with self._operations.lock(model):
            before = self._required.get(model, frozenset())
            # Until the outcome is known both are kept: a look in between must not retire what was just loaded.
            self._required[model] = before | names
            kept = before
            try:
                view = self._view = await self._reader.next_look()
                if model in view.intents.unloaded:
                    raise VersionNotReady(model, sorted(names)[0], "the model was unloaded by hand; load it first")
                wishes = view.wishes(self._required)
                keys = [(model, name) for name in sorted(names)]
                await self._settle(keys)
                for key in keys:
                    self._begin_required(view, key, wishes.get(key, ""))
                await self._settle(keys)
                for key in keys:
                    self.version(*key)
                await self._awake(keys)
                kept = names
                self._pin(model, names)
                if self._pinning is not None:
                    await self._pinning
            finally:
                self._required[model] = before
                self._require(model, kept)

    def _begin_required(self, view: RepositoryView, key: Key, fingerprint: str) -> None:
        held = self._held.get(key)
        if held is not None and held.version.state is VersionState.AVAILABLE:
            return
        if (
            held is not None
            and held.version.state is VersionState.UNLOADING
            and serves_again(fingerprint, held.serving)
        ):
            self._revive(key)
        elif not fingerprint:
            raise UnknownVersion(*key) if key[0] in view.folders else UnknownModel(key[0])
        elif held is None or fingerprint != held.failed:
            self._start_load(key, view.candidate(key, fingerprint))
