"""Neither loading a large model nor a source that does not answer stalls what serves."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from onnx import helper

from gateway.serving.catalog import Catalog
from gateway.serving.intents import Intents, IntentStore
from gateway.serving.kept_files import keep_files
from gateway.serving.lifecycle import Pipeline
from gateway.serving.probe import Prober
from gateway.serving.repository import ModelRepository
from gateway.serving.repository_reader import FIRST_LOOK_S, RepositoryReader
from gateway.serving.session import Session
from gateway.serving.version import VersionState
from gateway.tensor import Datatype
from loaders.filesystem import FilesystemLoader
from loaders.store import ContentStore
from tests import models
from tests.machine_load import as_loaded
from tests.serving.catalogs import answer, opened

WIDTH = 1448  # 8 MiB a layer


def large(layers: int) -> bytes:
    """A chain of matrix products, 8 MiB each."""
    random = np.random.default_rng(0)
    weights = [
        models.weight(f"w{layer}", random.standard_normal((WIDTH, WIDTH)).astype(np.float32)) for layer in range(layers)
    ]
    names = ["x", *(f"h{layer}" for layer in range(1, layers)), "y"]
    nodes = [helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]) for layer in range(layers)]
    row = (-1, WIDTH)
    inputs, outputs = [models.tensor_value("x", Datatype.FP32, row)], [models.tensor_value("y", Datatype.FP32, row)]
    return bytes(models.model_of(nodes, inputs, outputs, weights).SerializeToString())


class Ticks:
    """How often the loop came round, and the longest time that it did not."""

    def __init__(self) -> None:
        self.count = 0
        self.longest_s = 0.0

    async def watch(self) -> None:
        last = perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = perf_counter()
            self.count += 1
            self.longest_s = max(self.longest_s, now - last)
            last = now


async def watched(work: Awaitable[object]) -> tuple[Ticks, float]:
    """What the loop did while `work` was done, and how long that took in seconds."""
    ticks = Ticks()
    watching = asyncio.create_task(ticks.watch())
    begun = perf_counter()
    await work
    elapsed_s = perf_counter() - begun
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    return ticks, elapsed_s


@pytest.mark.slow
async def test_the_loop_runs_on_while_100_mb_are_loaded(tmp_path: Path) -> None:
    content = await asyncio.to_thread(large, 13)
    assert len(content) > 100_000_000
    # Making the session takes 0.4 s or more; if that held the interpreter, the loop would not come round meanwhile.
    ticks, _ = await watched(asyncio.to_thread(Session, content, intra_threads=1))
    assert ticks.count > 20
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", content)
        ticks, elapsed_s = await watched(live.catalog.poll())
        assert live.states() == {"m/1": VersionState.AVAILABLE}
        assert ticks.count > 50
        # A share and not a time: on a machine that is busy otherwise, everything takes longer alike.
        assert ticks.longest_s < elapsed_s / 3


class Stalling(FilesystemLoader):
    """A loader whose looks wait, once they are told to, as those at a registry that does not answer do."""

    def __init__(self, root: Path, store: ContentStore) -> None:
        super().__init__(root, store)
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.waits = threading.Event()

    @contextmanager
    def one_look(self) -> Iterator[None]:
        with super().one_look():
            if not self.goes_on.is_set():
                self.waits.set()
                self.goes_on.wait(20)
            yield


async def test_operators_do_not_wait_for_a_source_that_does_not_answer(tmp_path: Path) -> None:
    """Neither those who unload a model nor those who go back to a version that is loaded."""
    for version, scale in (("1", 2.0), ("2", 3.0)):
        models.write_version(
            tmp_path / "models", "m", version, models.affine(scale), config="version_policy { all {} }"
        )
    models.write_version(tmp_path / "models", "other", "1", models.affine())
    store = ContentStore(tmp_path / "store")
    loader = Stalling(tmp_path / "models", store)
    pipeline = Pipeline(loader, Prober(tmp_path / "probes", idle_s=5), intra_threads=1)
    catalog = Catalog(ModelRepository(loader), pipeline, IntentStore(tmp_path / "state"), store=store)
    try:
        await catalog.poll()
        await catalog.require("m", ["2"])
        loader.goes_on.clear()
        looking = asyncio.create_task(catalog.poll())
        assert await asyncio.to_thread(loader.waits.wait, 20)
        async with asyncio.timeout(10):
            await catalog.require("m", ["1"])
            await catalog.unload("other")
        assert not looking.done()
        loader.goes_on.set()
        await looking
        assert catalog.routed("m") == ["1"]
        states = {status.model: status.state for status in catalog.states("other")}
        assert states["other"] is not VersionState.AVAILABLE, "the look began before, and must not bring it back"
        assert IntentStore(tmp_path / "state").read().pins["m"].keys() == {"1"}
    finally:
        loader.goes_on.set()
        await catalog.close()


async def test_a_start_does_not_wait_for_a_repository_that_hangs(tmp_path: Path) -> None:
    """What a route names serves from its copy, as where the repository is away; and the look that hung is the next."""
    for model in ("m", "other"):
        models.write_version(tmp_path / "models", model, "1", models.affine(3.0))
    store = ContentStore(tmp_path / "store")

    def made(loader: Stalling, first_look_s: float = FIRST_LOOK_S) -> Catalog:
        pipeline = Pipeline(loader, Prober(tmp_path / "probes", idle_s=5), intra_threads=1)
        state = IntentStore(tmp_path / "state")
        return Catalog(ModelRepository(loader), pipeline, state, store=store, first_look_s=first_look_s)

    before = made(Stalling(tmp_path / "models", store))
    await before.start(20)
    await before.require("m", ["1"])
    keeping = [task for task in asyncio.all_tasks() if "_keep_pin" in str(task.get_coro())]
    while keeping:  # the first begins the second
        await asyncio.wait(keeping)
        keeping = [task for task in asyncio.all_tasks() if "_keep_pin" in str(task.get_coro())]
    await before.close()

    loader = Stalling(tmp_path / "models", store)
    loader.goes_on.clear()
    catalog = made(loader, 0.05)
    try:
        async with asyncio.timeout(15):
            await catalog.start(20)
            await catalog.require("m", ["1"])  # as the feed does
        assert not loader.goes_on.is_set()
        assert answer(catalog.newest("m")) == 3.0
        assert "has not answered for 0.05 s" in catalog.trouble
        assert not catalog.ready()
        loader.goes_on.set()
        running = asyncio.create_task(catalog.run(3600.0))  # without polls it was never ready
        async with asyncio.timeout(as_loaded(15)):
            ready = asyncio.Event()
            catalog.subscribe(lambda version: ready.set() if catalog.ready() else None)
            if not catalog.ready():
                await ready.wait()
        running.cancel()
        assert answer(catalog.newest("other")) == 3.0
        assert catalog.trouble == ""
    finally:
        loader.goes_on.set()
        await catalog.close()


@asynccontextmanager
async def blind_reader(directory: Path, first_look_s: float) -> AsyncIterator[tuple[RepositoryReader, Stalling]]:
    """The reader of a repository that hangs, while one model is kept that a route names."""
    models.write_version(directory / "models", "m", "1", models.affine())
    store = ContentStore(directory / "store")
    loader = Stalling(directory / "models", store)
    repository, intents = ModelRepository(loader), IntentStore(directory / "state")
    kept = keep_files(store, ModelRepository(loader).scan()["m"])
    intents.change(lambda known: known.with_pins("m", {"1": loader.digest("m", "1")}).with_kept("m", kept))
    loader.goes_on.clear()
    reader = RepositoryReader(repository, intents, store, first_look_s=first_look_s)
    try:
        yield reader, loader
    finally:
        loader.goes_on.set()
        reader.close()


async def test_no_two_route_changes_wait_for_one_repository_that_hangs(tmp_path: Path) -> None:
    """Each look waited anew: every route change to a version that was not loaded cost the whole time again."""
    async with blind_reader(tmp_path, 0.3) as (reader, loader):
        begun_s = perf_counter()
        for _ in range(10):
            view = await reader.next_look()
            assert view.is_blind
            assert view.kept.keys() == {"m"}
        assert 0.25 < perf_counter() - begun_s < 1.5
        loader.goes_on.set()
        while view.is_blind:
            view = await reader.next_look()
        assert view.folders.keys() == {"m"}


async def test_what_is_decided_while_a_waiter_resumes_is_in_its_view(tmp_path: Path) -> None:
    """The look had ended, its waiter had not resumed: an unload in between was overwritten by the view from before."""
    async with blind_reader(tmp_path, 20.0) as (reader, loader):
        decides, next_decides, looked = threading.Event(), threading.Event(), threading.Event()

        def unload(intents: Intents) -> Intents:
            decides.wait(20)
            return intents.with_unload("m")

        def after(intents: Intents) -> Intents:
            next_decides.set()
            return intents

        looking = asyncio.create_task(reader.next_look())
        assert await asyncio.to_thread(loader.waits.wait, 20)
        rest = [asyncio.create_task(reader.change_intents(change)) for change in (unload, after)]
        rest_of_look = asyncio.ensure_future(reader.on_thread(looked.set))
        await asyncio.sleep(0)  # both changes are submitted
        loader.goes_on.set()
        assert looked.wait(20), "on the loop, which so learns of the look's end and of the change in one turn"
        decides.set()
        assert next_decides.wait(20)
        assert "m" in (await looking).intents.unloaded
        await asyncio.gather(*rest, rest_of_look)
