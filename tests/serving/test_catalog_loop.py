"""Loading a large model does not stall the loop that serves the others."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from onnx import helper

from gateway.serving.session import Session
from gateway.serving.version import VersionState
from gateway.tensor import Datatype
from tests import models
from tests.serving.catalogs import opened

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
