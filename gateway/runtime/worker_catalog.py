"""The catalog of a worker, with what its versions go through before they serve."""

from pathlib import Path
from typing import Final

from gateway.runtime.config import Config
from gateway.serving.catalog import Catalog
from gateway.serving.intents import IntentStore
from gateway.serving.lifecycle import Pipeline
from gateway.serving.preparer import Preparer
from gateway.serving.probe import Prober
from gateway.serving.repository import ModelRepository
from gateway.serving.residence import Residence
from loaders.model_signature import TrustedKeys
from loaders.schemes import LoaderSettings, open_loader
from loaders.store import ContentStore

_PROBER_IDLE_S: Final = 10.0


def make_catalog(config: Config, threads: int) -> Catalog:
    """Returns the catalog of the configured repository; each run has so many threads."""
    store = ContentStore(config.content_dir, max_bytes=config.models.content_store_bytes)
    links_to = [Path(path) for path in config.models.allow_links_to.split(",") if path]
    loader = open_loader(LoaderSettings(config.models.repository, store, links_to))
    keys = config.models.require_signature
    pipeline = Pipeline(
        loader,
        Prober(config.state_dir / "probes", idle_s=_PROBER_IDLE_S),
        intra_threads=threads,
        trusted_keys=None if keys is None else TrustedKeys(keys),
        preparer=Preparer(
            config.prepared_dir,
            min_bytes=config.models.prepare_min_bytes,
            max_bytes=config.models.prepared_models_bytes,
        ),
    )
    return Catalog(
        ModelRepository(loader), pipeline, IntentStore(config.state_dir), store=store, residence=_residence(config)
    )


def _residence(config: Config) -> Residence | None:
    """Returns a worker's share of the memory for versions on demand; None where all are always in memory."""
    if not config.models.load_on_demand:
        return None
    workers = max(1, config.process.workers)
    return Residence(-(-config.models.model_memory_bytes // workers), workers=workers)
