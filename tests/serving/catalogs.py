"""A real catalog over a repository in a temporary directory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gateway.serving.catalog import Catalog
from gateway.serving.intents import IntentStore
from gateway.serving.lifecycle import Pipeline
from gateway.serving.preparer import Preparer
from gateway.serving.probe import Prober
from gateway.serving.repository import ModelRepository
from gateway.serving.residence import Residence
from gateway.serving.version import Version, VersionState
from loaders.filesystem import FilesystemLoader
from loaders.loader import Loader, LocalVersion
from loaders.model_signature import TrustedKeys
from loaders.store import ContentStore
from tests.machine_load import as_loaded

Fetch = Callable[..., LocalVersion]  # of the content of a model file


def answer(version: Version) -> float:
    """The first element that the version (`models.affine`) answers to ones."""
    assert version.session is not None
    return float(version.session.run(None, {"x": np.ones((1, 4), np.float32)})[0][0, 0])


@dataclass
class OpenCatalog:
    """A catalog and what it told its listeners."""

    root: Path
    catalog: Catalog
    changes: list[tuple[str, str, VersionState]] = field(default_factory=list)
    available: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def states(self, model: str | None = None) -> dict[str, VersionState]:
        return {f"{status.model}/{status.version}": status.state for status in self.catalog.states(model)}

    def reason(self, model: str, version: str) -> str:
        return next(status.reason for status in self.catalog.states(model) if status.version == version)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Returns when the condition holds, looked at after each change of a state."""
        changed = asyncio.Event()
        stop = self.catalog.subscribe(lambda version: changed.set())
        try:
            async with asyncio.timeout(as_loaded(timeout_s)):
                while not condition():
                    await changed.wait()
                    changed.clear()
        finally:
            stop()

    async def settled(self) -> None:
        """Returns when every change of the pins that has begun is on disk."""
        tasks = [task for task in asyncio.all_tasks() if "_keep_pin" in str(task.get_coro())]
        if tasks:
            await asyncio.wait(tasks)


@asynccontextmanager
async def opened(
    directory: Path,
    *,
    store_bytes: int = 1 << 40,
    trusted_keys: TrustedKeys | None = None,
    preparer: Preparer | None = None,
    residence: Residence | None = None,
    loader_of: Callable[[Path, ContentStore], Loader] = FilesystemLoader,
) -> AsyncIterator[OpenCatalog]:
    """A catalog of `<directory>/models`; its data, probe results and copies survive in `<directory>/data`."""
    root, data = directory / "models", directory / "data"
    root.mkdir(exist_ok=True)
    store = ContentStore(data / "store", max_bytes=store_bytes)
    loader = loader_of(root, store)
    prober = Prober(data / "probes", idle_s=5)
    pipeline = Pipeline(loader, prober, intra_threads=1, trusted_keys=trusted_keys, preparer=preparer)
    catalog = Catalog(ModelRepository(loader), pipeline, IntentStore(data / "state"), store=store, residence=residence)
    live = OpenCatalog(root, catalog)

    def note_available(version: Version) -> None:
        assert (version.session is not None) is version.config.kind.has_file
        assert version.state is VersionState.LOADING
        live.available.append(f"{version.model}/{version.name}")

    def note_ended(version: Version) -> None:
        live.ended.append(f"{version.model}/{version.name}")

    catalog.attach(note_available, note_ended)
    catalog.subscribe(lambda version: live.changes.append((version.model, version.name, version.state)))
    try:
        yield live
    finally:
        await catalog.close()


def state_of(version: Version) -> VersionState:
    return version.state
