"""A store with a judge, and workers that tell what they please."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.rollout.controller import RolloutController
from gateway.rollout.rollout_record import RolloutRecord
from gateway.rollout.rollout_store import CountsWriter, RolloutStore
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.store.editor import Editor
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.route_reader import RouteReader
from gateway.runtime.rollout_hand import rollout_operation
from tests.machine_load import as_loaded
from tests.routing.documents import Plain
from tests.routing.live import control_of, store_of
from tests.valkey import Valkey

MODEL = "fraud"
DEADLINE_S = 20.0
AT_ONCE: list[Plain] = [{"weight": "10%", "hold": "0s"}, {"weight": "50%", "hold": "0s"}]
GOOD = {"completed": 5000, "errors": 5}
BAD = {"completed": 5000, "errors": 500}


def document(steps: list[Plain] = AT_ONCE, version: str = "2", **canary: object) -> RouteDocument:
    fields: Plain = {"steps": steps, "analysis": {"guardrails": [{"kind": "errors"}]}, **canary}
    spec = {"arms": {"stable": {"version": "1"}, "canary": {"version": version}}, "strategy": {"canary": fields}}
    return parse({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": MODEL}, "spec": spec})


class Hand:
    """Commits as a worker does, without the way over a socket."""

    def __init__(self, control: RouteControl) -> None:
        self._carry_out = rollout_operation(Editor(control))

    async def advance(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._do("advance", model, revision, reason, detail)

    async def promote(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._do("promote", model, revision, reason, detail)

    async def abort(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._do("abort", model, revision, reason, detail)

    async def revert(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._do("revert", model, revision, reason, detail)

    async def reweigh(
        self, model: str, revision: int, weights: Mapping[str, str], reason: str, detail: str = ""
    ) -> None:
        await self._do("reweigh", model, revision, reason, detail, weights)

    async def _do(
        self, act: str, model: str, revision: int, reason: str, detail: str, weights: Mapping[str, str] | None = None
    ) -> None:
        payload: dict[str, object] = {"act": act, "model": model, "revision": revision}
        payload |= {"reason": reason, "detail": detail}
        await self._carry_out(payload | ({"weights": dict(weights)} if weights is not None else {}))


@dataclass
class Rolling:
    """A store with a judge, and workers that tell what they please."""

    url: str
    store: RedisStore
    control: RouteControl
    rollouts: RolloutStore
    judge: RolloutController

    def another(self, name: str) -> RolloutController:
        return RolloutController(RolloutStore(self.store, RouteReader(self.store)), Hand(self.control), name)

    async def record(self) -> RolloutRecord:
        record = await self.rollouts.record(MODEL)
        assert record is not None
        return record

    async def tell(self, worker: str = "w0", **arms: dict[str, int]) -> None:
        """A worker's totals at the active revision."""
        writer = CountsWriter(self.url, "default", worker)
        await writer.write({(await self.control.get(MODEL)).revision: arms})
        await writer.aclose()

    async def until(self, condition: Callable[[RolloutRecord], bool], judge: RolloutController | None = None) -> None:
        """Judges until the state is as it should be."""
        end = time.monotonic() + as_loaded(DEADLINE_S)
        while True:
            await (judge or self.judge).step()
            record = await self.rollouts.record(MODEL)
            if record is not None and condition(record):
                return
            assert time.monotonic() < end, record
            await asyncio.sleep(0.02)

    async def operations(self) -> list[tuple[str, str]]:
        return [(entry.operation, entry.actor) for entry in await self.store.history(MODEL)]


@asynccontextmanager
async def opened(valkey: Valkey) -> AsyncIterator[Rolling]:
    async with store_of(valkey.url) as store:
        control, rollouts = control_of(store), RolloutStore(store, RouteReader(store))
        yield Rolling(valkey.url, store, control, rollouts, RolloutController(rollouts, Hand(control), "one"))


def stopped(record: RolloutRecord) -> bool:
    return record.state.phase == "stopped"
