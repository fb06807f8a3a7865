"""Look-ups while their store is away or hangs: no time is lost, and it is said."""

import asyncio
from pathlib import Path

import redis

from gateway.errors import Code
from gateway.serving.version import VersionState
from gateway.telemetry.sums import branch
from tests.api.calls import fails, until
from tests.api.stand import Stand
from tests.features.look_ups import FEATURES, PARAMETERS, TOLD, A, ask, asking, view
from tests.routing.fault_proxy import FaultProxy
from tests.valkey import Valkey


def reason(stand: Stand) -> str:
    (status,) = [status for status in stand.catalog.states() if status.model == "users"]
    assert status.state is VersionState.AVAILABLE
    return status.reason


async def test_a_store_that_is_away_costs_no_time(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    proxy = FaultProxy(valkey.socket_path)
    async with proxy.running(), view(tmp_path, proxy.url, TOLD) as stand:
        assert (await ask(stand, 1))["score"] == [[0.25]]
        assert reason(stand) == ""
        proxy.put("cut")
        answer = await ask(stand, 1)
        assert (answer["score"], answer["status"]) == ([[-1.0]], [[A, A, A]])
        assert reason(stand).startswith("features: the feature store 'default' is not reachable")
        assert branch(stand.counters.snapshot(), "gauges", "features", "away") == {"default": 1}
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            assert (await ask(stand, 1))["score"] == [[-1.0]]
        assert asyncio.get_running_loop().time() - began < 5  # a tenth of what waiting for it would take
        proxy.put("none")
        await until(lambda: not reason(stand))
        assert (await ask(stand, 1))["score"] == [[0.25]]


async def answered(stand: Stand) -> None:
    """The store's own value was answered, within the view's deadline."""
    async with asyncio.timeout(20):
        while (await ask(stand, 1))["score"] != [[0.25]]:
            pass


async def test_a_store_that_hangs_is_waited_for_once(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    proxy = FaultProxy(valkey.socket_path)
    async with proxy.running(), view(tmp_path, proxy.url, {**TOLD, "deadline_ms": "200"}) as stand:
        await answered(stand)
        proxy.put("stall")
        assert (await ask(stand, 1))["status"] == [[A, A, A]]
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            assert (await ask(stand, 1))["status"] == [[A, A, A]]
        assert asyncio.get_running_loop().time() - began < 5  # half of what fifty deadlines would take
        proxy.put("none")
        await answered(stand)
        assert [queue["calls"] for queue in stand.engine.queues()] == [0]


async def test_without_defaults_a_store_that_is_away_is_said_at_once(valkey: Valkey, tmp_path: Path) -> None:
    async with view(
        tmp_path, f"unix://{tmp_path / 'nothing.sock'}", {**PARAMETERS, "unavailable": "error"}, FEATURES[:3]
    ) as stand:
        code, text = await fails(stand, asking(1))
        assert code is Code.UNAVAILABLE
        assert (
            "feature 'score' is unavailable: the feature store 'default' is not reachable: no socket at its path"
            in text
        )
        await until(lambda: "no socket" in reason(stand))


async def test_a_call_s_own_deadline_ends_its_look_up(valkey: Valkey, store: "redis.Redis", tmp_path: Path) -> None:
    proxy = FaultProxy(valkey.socket_path)
    async with proxy.running(), view(tmp_path, proxy.url, TOLD) as stand:
        await ask(stand, 1)
        proxy.put("stall")
        code, _ = await fails(stand, asking(1), 0.05)
        assert code is Code.DEADLINE_EXCEEDED
        await until(lambda: stand.engine.in_flight == 0)
        call = stand.stub.ModelInfer(asking(1))
        await until(lambda: stand.engine.in_flight == 1)
        call.cancel()
        await until(lambda: stand.engine.in_flight == 0)


async def test_a_view_without_its_store_does_not_load(tmp_path: Path) -> None:
    async with view(tmp_path, "redis://127.0.0.1:1", {**PARAMETERS, "store": "shop"}, FEATURES[:3]) as stand:
        (status,) = [status for status in stand.catalog.states() if status.model == "users"]
        assert status.state is VersionState.FAILED
        assert (
            "without a feature store 'shop' (it has 'default'); name its address with --feature-store shop="
            in status.reason
        )
