"""All feature stores of a worker: who describes and answers feature views, and what is counted of them."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from time import time
from typing import Final

from gateway.errors import FailedPrecondition
from gateway.features.feature_queue import FeatureQueue
from gateway.features.feature_store import FeatureStore
from gateway.features.feature_view import FeatureView
from gateway.features.look_up_counts import LookUpCounts
from gateway.features.view_parameters import feature_view
from gateway.serving.config_source import ConfigSource
from gateway.serving.model_config import ModelConfig
from gateway.serving.version import Version

OPTION: Final = "feature-store"
# What a model has that is run: a view is cached and limited by parameters of its own.
_IDLE: Final = (
    "default_model_filename",
    "dynamic_batching",
    "instance_group",
    "model_warmup",
    "optimization",
    "response_cache",
)


class FeatureStores:
    """The stores that the gateway was started with, by name. A connection is made when a view first needs it."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._stores: dict[str, FeatureStore] = {}
        self._counts: dict[str, LookUpCounts] = {}

    async def describe(self, model: str, source: ConfigSource, config: ModelConfig) -> ModelConfig:
        """Returns the configuration of a feature view, which can be looked up here.

        Order: its store was asked whether it answers. One that does not hinders no view; the version's reason says so.
        Raises: FailedPrecondition naming what is wrong, and what to do.
        """
        view = _view_of(model, config)
        await self._store_of(view).looked()
        idle = sorted(field for field in _IDLE if source.sets(field))
        told = (f"fields without effect in a feature view: {', '.join(idle)}",) if idle else ()
        return replace(config, caches=False, warnings=(*config.warnings, *told))

    def queue_of(self, version: Version) -> FeatureQueue:
        """Returns what answers the calls of a version that was described. Raises: FailedPrecondition."""
        view = _view_of(version.model, version.config)
        store = self._store_of(view)
        counts = self._counts.setdefault(version.model, LookUpCounts())
        return FeatureQueue(version, view, store, counts, loop=asyncio.get_running_loop(), wall_s=time)

    def look_ups(self) -> Mapping[str, object]:
        """Returns what was counted of the look-ups of each view, by model."""
        return {model: counts.snapshot() for model, counts in self._counts.items()}

    def pipelines(self) -> Mapping[str, object]:
        """Returns what was counted of each store, by name."""
        return {name: store.counts() for name, store in self._stores.items()}

    def states(self) -> Mapping[str, object]:
        """Returns which stores are away, and the bytes of rows that are kept of each view."""
        return {
            "away": {name: int(bool(store.trouble)) for name, store in self._stores.items()},
            "cache_bytes": {model: counts.cache_bytes for model, counts in self._counts.items()},
        }

    async def aclose(self) -> None:
        for store in self._stores.values():
            await store.aclose()

    def _store_of(self, view: FeatureView) -> FeatureStore:
        if view.store not in self._urls:
            known = ", ".join(repr(name) for name in self._urls) or "none"
            raise FailedPrecondition(
                f"parameters.store: the gateway was started without a feature store {view.store!r} (it has {known}); "
                f"name its address with --{OPTION} {view.store}=redis://..."
            )
        store = self._stores.get(view.store)
        if store is None:
            store = self._stores[view.store] = FeatureStore(view.store, self._urls[view.store])
        return store


def _view_of(model: str, config: ModelConfig) -> FeatureView:
    return feature_view(model, config.parameters, config.inputs, config.outputs)
