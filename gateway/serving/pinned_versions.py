"""The content that routes name: pinned on disk, so that it serves whatever happens to the repository meanwhile."""

import asyncio
import logging
from collections.abc import Container, Mapping
from dataclasses import replace

from gateway.errors import Unavailable
from gateway.serving.demand_loads import DemandLoads
from gateway.serving.intents import IntentStore
from gateway.serving.kept_files import keep_files
from gateway.serving.lifecycle import Pipeline
from gateway.serving.operations import Operations
from gateway.serving.registry import OnVersion
from gateway.serving.repository import ModelRepository
from gateway.serving.repository_reader import FIRST_LOOK_S, RepositoryReader
from gateway.serving.residence import Residence
from loaders.errors import LoaderError
from loaders.store import ContentStore

logger = logging.getLogger(__name__)


class PinnedVersions(DemandLoads):
    """Holds the versions of this worker, and the pins of those that routes name; without a `store` there are none."""

    def __init__(
        self,
        repository: ModelRepository,
        pipeline: Pipeline,
        intents: IntentStore,
        *,
        store: ContentStore | None,
        residence: Residence | None,
        first_look_s: float = FIRST_LOOK_S,
        on_available: OnVersion | None = None,
        on_ended: OnVersion | None = None,
    ) -> None:
        self._reader = RepositoryReader(repository, intents, store, first_look_s=first_look_s)
        super().__init__(
            self._reader.threads,
            pipeline,
            residence=residence,
            pinned_loaded=self._note_pinned,
            on_available=on_available,
            on_ended=on_ended,
        )
        self._store = store
        self._operations = Operations()
        self._pinning: asyncio.Task[None] | None = None  # the newest change of the pins

    def require_available(self, model: str, names: frozenset[str]) -> bool:
        """Returns whether all of the versions are AVAILABLE, and in memory; if so, they are required from now on, as by
        `require`.
        """
        available = self._available.get(model, {})
        if names <= available.keys() and not any(available[name].is_cold for name in names):
            self._require(model, names)
            self._pin(model, names)
            return True
        return False

    def _pin(self, model: str, names: frozenset[str]) -> None:
        """Pins the content that the route was given, on disk: it serves until no route names the version any more."""
        available = self._available.get(model, {})
        # What has no model file is what the configuration says: no copy could be loaded in its place.
        present = [available[name] for name in names if name in available]
        digests = {version.name: version.digest for version in present if version.config.kind.has_file}
        intents = self._view.intents
        if intents.with_pins(model, digests) != intents or (digests and model not in intents.kept and self._store):
            self._pinning = self._operations.begin(self._keep_pins(model, digests))

    def release_unrouted(self, routed: Container[str]) -> None:
        """Ends the pins of models that have no route any more: the repository's own content serves again."""
        for model in [model for model in self._view.intents.pins if model not in routed]:
            self._require(model, frozenset())
            self._operations.begin(self._keep_pins(model, {}))

    async def _keep_pins(self, model: str, digests: Mapping[str, str]) -> None:
        try:
            intents = await self._reader.change_intents(lambda intents: intents.with_pins(model, digests))
        except Unavailable as error:
            logger.warning("the content that a route names is not pinned: model=%s error=%s", model, error)
            return
        self._view = replace(self._view, intents=intents)
        for key, entry in self._held.items():
            if key[0] == model and key[1] not in digests and entry.version.reason and entry.serving:
                entry.serving = "before the pin ended"  # no fingerprint: the next look loads what lies there
                entry.version.reason = ""
                self._notify(entry.version)
        if digests:  # by a reading of the repository, which may take its time
            self._operations.begin(self._keep_pinned_files(model))

    async def _keep_pinned_files(self, model: str) -> None:
        """Keeps the files beside the versions of a model that has pins, for the time when its directory is gone."""
        folder, store = self._view.folders.get(model), self._store
        if folder is None or store is None:
            return
        try:
            digest = await self._reader.on_thread(lambda: keep_files(store, folder))
            intents = await self._reader.change_intents(lambda intents: intents.with_kept(model, digest))
        except (Unavailable, LoaderError) as error:
            logger.warning("files beside routed versions are not kept: model=%s error=%s", model, error)
            return
        self._view = replace(self._view, intents=intents)

    def _note_pinned(self, model: str) -> None:
        """Keeps the files of the model again: labels and configuration may be new."""
        self._operations.begin(self._keep_pinned_files(model))
