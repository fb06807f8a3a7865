"""The check of a running test's split: counted by workers, added up in the store, told once."""

import numpy as np
import pytest

from gateway.errors import Code
from gateway.rollout.controller import RolloutController
from gateway.rollout.rollout_store import CountsWriter, RolloutStore
from gateway.rollout.split_watch import LOOK_MS, SplitMismatch, SplitWatch, counted, is_watched, mismatch
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.route import Route, propose
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.bucket import SAMPLED_BUCKET
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.store.route_reader import RouteReader
from gateway.serving.arm_tally import JudgedRoutes
from gateway.serving.key_sample import KeySample
from tests.api.test_control_rollouts import NoHand
from tests.rollout.experiments import MODEL, split_document
from tests.routing.live import BY, control_of, store_of
from tests.valkey import Valkey


def document(**spec: object) -> RouteDocument:
    return parse(split_document({"a": 50, "b": 50}, srm={}, **spec))


def sample(buckets: np.ndarray) -> str:
    made = KeySample()
    for bucket in buckets.tolist():
        made.add(bucket)
    return made.text()


def drawn(route: Route, keys: int, *, lost_of_b: float = 0.0, workers: int = 1) -> dict[str, list[str]]:
    """The samples of workers that see the same keys, of which arm b loses some."""
    rng = np.random.default_rng(1)
    buckets = rng.integers(0, 1_000_000, size=keys)
    told: dict[str, list[str]] = {"a": [], "b": [], "holdout": []}
    for arm, samples in told.items():
        own = buckets[[route.table.arm_of(bucket) == arm for bucket in buckets.tolist()]]
        kept = own[rng.random(len(own)) >= (lost_of_b if arm == "b" else 0.0)]
        samples += [sample(kept[rng.random(len(kept)) < 0.9]) for _ in range(workers)]
    return told


def test_a_key_is_counted_once_whoever_sees_it() -> None:
    rng = np.random.default_rng(0)
    buckets = rng.integers(0, 1_000_000, size=2000)
    expected = len({bucket for bucket in buckets.tolist() if bucket % SAMPLED_BUCKET == 0})
    assert counted([sample(buckets)]) == expected
    assert counted([sample(buckets), sample(np.repeat(buckets, 3)), ""]) == expected
    assert counted([sample(buckets[:1000]), sample(buckets[1000:])]) == expected
    assert counted([]) == 0
    assert counted([sample(np.array([-1, 1, 9]))]) == 0
    assert counted([sample(np.array([0, 999_992]))]) == 2
    assert counted(["none", "eJwDAAAAAAE="]) == 0


@pytest.mark.parametrize("plan", [{}, {"holdout": "20%"}])
def test_a_split_as_the_route_says_is_none_that_is_broken(plan: dict[str, object]) -> None:
    route = propose(document(**plan), None)
    assert is_watched(route)
    assert mismatch(route, drawn(route, 20_000, workers=2)) is None
    assert mismatch(route, {}) is None
    found = mismatch(route, drawn(route, 40_000, lost_of_b=0.3, workers=2))
    assert found is not None
    assert found.keys["b"] < found.keys["a"]
    assert found.shares["b"] == route.table.weights()["b"] / 1_000_000


def test_only_routes_that_ask_for_it_are_counted() -> None:
    judged = JudgedRoutes()
    plain = propose(parse(split_document({"a": 50, "b": 50})), None)
    assert not is_watched(plain)
    judged.follow(snapshot_of(plain, 4))
    assert not judged.by_revision
    judged.follow(snapshot_of(propose(document(holdout="10%"), None), 5))
    assert set(judged.by_revision[5]) == {"a", "b", "holdout"}
    tally = judged.of(Decision("b", "2", 5, "SPLIT", 800_000))
    assert tally is not None
    for place, code in enumerate((Code.OK, Code.INTERNAL, Code.INVALID_ARGUMENT, Code.UNAVAILABLE)):
        tally.observe(code, 1000, 800_000 + SAMPLED_BUCKET * place)
    tally.observe(Code.OK, 1000, 800_000)
    tally.observe(Code.OK, 1000, -1)
    assert counted([str(tally.snapshot()["keys"])]) == 2
    again = tally.snapshot()["keys"]
    assert tally.snapshot()["keys"] is again  # nothing new, nothing made


def snapshot_of(route: Route, revision: int) -> Snapshot:
    committed = Route(route.model, revision, route.document, route.table, 1, 0)
    return Snapshot.of("e", revision, [committed])


async def test_a_mismatch_is_told_once_for_its_revision_by_what_all_workers_counted(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control, told = control_of(store), list[SplitMismatch]()
        judge = RolloutController(RolloutStore(store, RouteReader(store)), NoHand(), "one", tell_split=told.append)
        await control.apply(document(), change=BY)
        route = await control.get(MODEL)
        await judge.step()
        assert not told
        samples = drawn(route, 40_000, lost_of_b=0.3, workers=2)
        for number in range(2):
            writer = CountsWriter(valkey.url, "default", f"w{number}")
            await writer.write({route.revision: {arm: {"keys": samples[arm][number]} for arm in ("a", "b")}})
            await writer.aclose()
        watch = SplitWatch(RolloutStore(store, RouteReader(store)), told.append)
        for look in range(3):
            await watch.look({MODEL: route}, (look + 1) * LOOK_MS)
        [found] = told
        assert (found.model, found.revision) == (MODEL, route.revision)
        assert found.told()["keys"] == found.keys
        await store.link.call("HSET", store.keys.counts(route.revision), "w9", "garbage")
        await SplitWatch(RolloutStore(store, RouteReader(store)), told.append).look({MODEL: route}, LOOK_MS)
        assert told[1].id == found.id  # another host's is the same event
        await store.link.call("SET", store.keys.counts(route.revision), "garbage")
        await SplitWatch(RolloutStore(store, RouteReader(store)), told.append).look({MODEL: route}, LOOK_MS)
        assert len(told) == 2
