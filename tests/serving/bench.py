"""One version with its queue, on the loop of a test."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.errors import GatewayError
from gateway.serving.batcher import Batcher
from gateway.serving.call import Call
from gateway.serving.model_config import ModelConfig
from gateway.serving.session import Session, Termination
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.version import Version
from gateway.tensor import Array
from tests.serving.stage import given

Floats = npt.NDArray[np.float32]


class Observed(Session):
    """A session that remembers how many rows each run had, and on which thread it ran."""

    def __init__(self, model: bytes) -> None:
        super().__init__(model, intra_threads=1)
        self.runs: list[int] = []
        self.run_threads: list[int] = []
        self.threads: set[int] = set()
        self.began = threading.Event()
        self.costs: Mapping[int, float] = {}

    def run(
        self, output_names: Sequence[str] | None, feeds: Mapping[str, Array], terminate: Termination | None = None
    ) -> list[Array]:
        first = next(iter(feeds.values()))
        self.runs.append(first.shape[0] if first.shape else 1)
        self.threads.add(threading.get_ident())
        self.run_threads.append(threading.get_ident())
        self.began.set()
        end = time.thread_time() + self.costs.get(self.runs[-1], 0.0)
        while time.thread_time() < end:
            pass
        return super().run(output_names, feeds, terminate)


class Bench:
    """One version with its queue."""

    def __init__(
        self, model: bytes, *, run_us: float = 5.0, max_batch_size: int = 64, shared: SharedRunState | None = None,
        **config: Any,
    ) -> None:  # fmt: skip
        self.shared = shared or SharedRunState()
        self.session = Observed(model)
        self.version = Version("m", "1")
        settings = ModelConfig(
            name="m",
            max_batch_size=max_batch_size,
            merges=max_batch_size > 0,
            inputs=self.session.inputs,
            outputs=self.session.outputs,
        )
        self.version.equip(self.session, replace(settings, **config), digest="d", run_us=run_us)
        self.threads = ThreadPoolExecutor(2)
        self.batcher = Batcher(
            self.version, loop=asyncio.get_running_loop(), threads=self.threads, parallel=1, shared=self.shared
        )
        self.outcomes: list[Call] = []
        self._futures: dict[Call, asyncio.Future[Call]] = {}

    def call(self, *inputs: Array, wanted: tuple[int, ...] | None = None, deadline_ns: int = 0) -> Call:
        future = asyncio.get_running_loop().create_future()
        call = Call("m", "", f"r{len(self._futures)}", self, deadline_ns=deadline_ns)
        self._futures[call] = future
        call.version = self.version
        call.inputs = [array if array.dtype == object else array.tobytes() for array in inputs]
        call.shapes = [array.shape for array in inputs]
        call.rows = inputs[0].shape[0] if self.version.batches else 1
        call.wanted = wanted
        return call

    def put(self, *inputs: Array, wanted: tuple[int, ...] | None = None, deadline_ns: int = 0) -> Call:
        call = self.call(*inputs, wanted=wanted, deadline_ns=deadline_ns)
        self.batcher.put(call)
        return call

    def submitted(self, call: Call) -> None:
        pass

    def withdrawn(self, call: Call) -> None:
        pass

    def answered(self, call: Call) -> None:
        self.outcomes.append(call)
        self._futures[call].set_result(call)

    def forget(self) -> None:
        """Keeps no call that has ended."""
        self.outcomes.clear()
        for call in [call for call, future in self._futures.items() if future.done()]:
            del self._futures[call]

    async def outputs(self, call: Call) -> Sequence[Array]:
        await self._futures[call]
        if call.error is not None:
            raise call.error
        return given(call, self.version)

    async def error(self, call: Call) -> GatewayError:
        await self._futures[call]
        assert call.error is not None
        return call.error


def row(*values: float) -> Floats:
    return np.array([values], np.float32)
