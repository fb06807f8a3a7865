"""Neither loading a large model nor a source that does not answer stalls what serves."""

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from onnx import helper

from gateway.serving.catalog import Catalog
from gateway.serving.intents import IntentStore
from gateway.serving.lifecycle import Pipeline
from gateway.serving.probe import Prober
from gateway.serving.repository import ModelRepository
from gateway.serving.session import Session
from gateway.serving.version import VersionState
from gateway.tensor import Datatype
from loaders.filesystem import FilesystemLoader
from loaders.store import ContentStore
from tests import models
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

    def made(loader: Stalling) -> Catalog:
        pipeline = Pipeline(loader, Prober(tmp_path / "probes", idle_s=5), intra_threads=1)
        state = IntentStore(tmp_path / "state")
        return Catalog(ModelRepository(loader), pipeline, state, store=store, first_look_s=0.05)

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
    catalog = made(loader)
    try:
        async with asyncio.timeout(15):
            await catalog.start(20)
            await catalog.require("m", ["1"])  # as the feed does
        assert not loader.goes_on.is_set()
        assert answer(catalog.newest("m")) == 3.0
        assert "has not answered for 0.05 s" in catalog.trouble
        assert not catalog.ready()
        loader.goes_on.set()
        while not catalog.ready():
            await catalog.poll()
        assert answer(catalog.newest("other")) == 3.0
        assert catalog.trouble == ""
    finally:
        loader.goes_on.set()
        await catalog.close()
