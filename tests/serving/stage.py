"""An engine with everything real around it: a catalog, models, a snapshot, a prediction log."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np

from gateway.errors import Code
from gateway.records.worker.prediction_log import PredictionLog
from gateway.records.worker.tail import Row, tail
from gateway.routing.decision.route import propose
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.document import parse
from gateway.serving.admission import Admission
from gateway.serving.call import Call, arrays_of
from gateway.serving.catalog import Catalog
from gateway.serving.engine import Engine
from gateway.serving.preparer import Preparer
from gateway.serving.residence import Residence
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.version import Version
from gateway.telemetry.counters import Counters
from gateway.telemetry.sums import Tree, branch
from gateway.tensor import Array
from tests.machine_load import as_loaded
from tests.serving.catalogs import opened


@dataclass
class Rules:
    """The rules of the moment, set by hand where a worker has its feed."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot.of("tests", 0, ()))


@dataclass
class Request:
    """What routing may read of a request."""

    headers: Mapping[str, str]
    requested_version: str
    request_id: str

    def metadata(self, name: str) -> str | None:
        return self.headers.get(name)

    def parameter(self, name: str) -> str | int | float | bool | None:
        return None

    def input_value(self, name: str) -> str | None:
        return None


class Nobody:
    """The receiver of a call whose outcome no test looks at."""

    def submitted(self, call: Call) -> None:
        pass

    def answered(self, call: Call) -> None:
        pass

    def withdrawn(self, call: Call) -> None:
        pass


@dataclass
class Stage:
    """What a test may touch."""

    catalog: Catalog
    engine: Engine
    rules: Rules
    counters: Counters
    log: PredictionLog
    admission: Admission
    wal: Path
    finished: list[Call] = field(default_factory=list)
    _ends: dict[Call, asyncio.Future[Call]] = field(default_factory=dict)

    def route(self, model: str, **spec: object) -> None:
        """The model's route from now on; two arms, `old` and `new`, of versions 1 and 2, unless it says otherwise."""
        arms = {"old": {"version": "1"}, "new": {"version": "2"}}
        usual: dict[str, object] = {"arms": arms, "strategy": {"pinned": {"arm": "old"}}}
        document = parse(
            {"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": model}, "spec": {**usual, **spec}}
        )
        before = self.rules.snapshot.routes.get(model)
        route = propose(document, before.route if before is not None else None)
        self.rules.snapshot = self.rules.snapshot.with_route(route)

    def begin(
        self, model: str, *, version: str = "", headers: Mapping[str, str] | None = None, request_id: str = "r",
        deadline_ns: int = 0, size_bytes: int = 10,
    ) -> Call:  # fmt: skip
        """A begun call; it is finished by itself once it is answered."""
        call = Call(model, version, request_id, self, deadline_ns=deadline_ns, size_bytes=size_bytes)
        refusal = self.engine.enter(call, Request(headers or {}, version, request_id))
        if refusal is not None:
            raise refusal
        self._ends[call] = asyncio.get_running_loop().create_future()
        return call

    def submit(self, call: Call, *inputs: Array) -> Call:
        """The call is on its way with these inputs, as an edge would have decoded them."""
        assert call.version is not None
        call.inputs = [array.tobytes() for array in inputs]
        call.shapes = [array.shape for array in inputs]
        call.rows = inputs[0].shape[0] if call.version.batches else 1
        self.engine.submit(call)
        return call

    async def end(self, call: Call) -> Call:
        await asyncio.sleep(0)  # a call may have been answered at once, and a loop of them must leave room for the rest
        async with asyncio.timeout(20):
            return await self._ends[call]

    async def infer(self, model: str, *inputs: Array, headers: Mapping[str, str] | None = None) -> Call:
        """The call, answered and finished."""
        return await self.end(self.submit(self.begin(model, headers=headers), *inputs))

    def forget(self) -> None:
        """Keeps no call that has ended."""
        self.finished.clear()
        for call in [call for call, end in self._ends.items() if end.done()]:
            del self._ends[call]

    def submitted(self, call: Call) -> None:
        pass

    def withdrawn(self, call: Call) -> None:
        pass

    def answered(self, call: Call) -> None:
        self.engine.finish(call, Code.OK if call.error is None else call.error.code)
        self.finished.append(call)
        self._ends[call].set_result(call)

    def sums(self, *path: str) -> Tree:
        return branch(self.counters.snapshot(), "sums", *path)

    def codes(self, model: str, version: str, arm: str) -> Tree:
        """Calls by the number of their code."""
        return self.sums("series", model, version, arm, "codes")

    def gauge(self, name: str) -> object:
        return branch(self.counters.snapshot(), "gauges")[name]

    async def rows(self) -> list[Row]:
        """Everything logged so far, in order of arrival."""
        await self.log.flush()
        return [row async for row in tail(self.wal, backlog=1000, follow=False)]

    def idle(self) -> bool:
        """Whether nothing is held: no permit, no bytes, no lease."""
        leases = sum(status.in_flight for status in self.catalog.states())
        return not (self.admission.requests or self.admission.bytes or leases)


def given(call: Call, version: Version | None = None) -> Sequence[Array]:
    """The outputs of an answered call, as arrays."""
    version = version or call.version
    assert version is not None
    specs = version.outputs if call.wanted is None else [version.outputs[index] for index in call.wanted]
    return arrays_of(call.outputs, specs, call.rows)


async def until(true: Callable[[], bool], limit_s: float = 20) -> None:
    """Lets the loop turn until the condition holds."""
    async with asyncio.timeout(as_loaded(limit_s)):
        while not true():  # noqa: ASYNC110 (the engine has no event for it)
            await asyncio.sleep(0)


@asynccontextmanager
async def staged(
    directory: Path,
    *,
    threads: int = 1,
    max_requests: int = 1000,
    max_bytes: int = 1 << 28,
    shared: SharedRunState | None = None,
    residence: Residence | None = None,
    preparer: Preparer | None = None,
) -> AsyncIterator[Stage]:
    """An engine over the models in `<directory>/models`, all loaded, or on demand with a `residence`."""
    async with opened(directory, residence=residence, preparer=preparer) as shop:
        counters = Counters()
        wal = directory / "wal"
        log = PredictionLog(wal, worker="worker-0", gateway="tests", boot=str(uuid4()))
        rules = Rules()
        admission = Admission(max_requests=max_requests, max_bytes=max_bytes)
        engine = Engine(shop.catalog, rules, counters, log, admission, threads=threads, shared=shared, draw=lambda: 0.5)
        shop.catalog.attach(engine.attach, engine.detach)
        await shop.catalog.poll()
        try:
            yield Stage(shop.catalog, engine, rules, counters, log, admission, wal)
        finally:
            engine.close()
            await log.close()


def floats(*values: float, features: int = 4) -> Array:
    """Rows of equal values."""
    return np.repeat(np.array(values, np.float32)[:, None], features, axis=1)


def indices(*values: int) -> Array:
    return np.array(values, np.int64)
