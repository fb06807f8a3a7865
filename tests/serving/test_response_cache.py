"""The answers that a worker keeps: what is found, what is not, and how much there may be."""

import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest_asyncio
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.serving.call import CACHED, UNCACHED, Call
from gateway.serving.response_cache import ENTRY_BYTES, ResponseCache, VersionCache
from gateway.serving.shared_run_state import SharedRunState
from gateway.telemetry.sums import whole
from gateway.tensor import Buffer
from tests import models
from tests.serving.stage import Nobody, Stage, floats, staged, until
from tests.serving.stage import given as outputs_of


def call_of(*inputs: Buffer | None, rows: int = 1, wanted: tuple[int, ...] | None = None) -> Call:
    call = Call("m", "1", "r", Nobody())
    call.inputs, call.rows, call.wanted = inputs, rows, wanted
    call.shapes = [None if tensor is None else (rows, 4) for tensor in inputs]
    return call


def kept(cache: VersionCache, call: Call, *outputs: Buffer) -> None:
    cache.keep(call, cache.key_of(call), outputs)


def found_for(cache: VersionCache, call: Call) -> list[Buffer] | None:
    outputs = cache.find(call, cache.key_of(call))
    return None if outputs is None else list(outputs)


KEYS = st.integers(0, 30)


@given(st.lists(st.tuples(KEYS, st.integers(0, 400)), max_size=80))
@example([])
@example([(0, 0)] * 3)
def test_it_is_a_table_whose_least_recently_used_entries_go(steps: list[tuple[int, int]]) -> None:
    cache = ResponseCache(8000)
    own = cache.of_version(fixed=True)
    model: dict[bytes, bytes] = {}
    for key, size in steps:
        call = call_of(key.to_bytes(16, "little"))
        answer = bytes([key]) * size
        given = found_for(own, call)
        if given is not None:
            assert given == [model[call.inputs[0]]]  # type: ignore[index]
            continue
        kept(own, call, answer)
        model[call.inputs[0]] = answer  # type: ignore[index]
    assert cache.size_bytes <= 8000
    assert cache.size_bytes >= len(cache) * ENTRY_BYTES
    assert (cache.size_bytes == 0) == (len(cache) == 0)


def test_only_the_same_bytes_shapes_outputs_and_version_are_answered() -> None:
    cache = ResponseCache(1 << 20)
    one, other = cache.of_version(fixed=False), cache.of_version(fixed=False)
    kept(one, call_of(b"0123"), b"answer")
    assert found_for(one, call_of(b"0123")) == [b"answer"]
    assert found_for(one, call_of(memoryview(b"0123"))) == [b"answer"]
    assert found_for(one, call_of(b"0124")) is None
    assert found_for(one, call_of(b"0123", rows=2)) is None
    assert found_for(one, call_of(b"0123", wanted=(0,))) is None
    assert found_for(one, call_of(None)) is None
    assert found_for(other, call_of(b"0123")) is None


def test_two_inputs_with_one_digest_are_told_apart_by_their_bytes() -> None:
    own = ResponseCache(1 << 24).of_version(fixed=True)
    large = bytearray(1 << 20)
    first = call_of(bytes(large))
    large[20_000] = 1  # between the pieces that the digest reads
    second = call_of(bytes(large))
    assert own.key_of(first) == own.key_of(second)
    kept(own, first, b"first")
    assert found_for(own, second) is None
    kept(own, second, b"second")
    assert found_for(own, second) == [b"second"]
    assert found_for(own, first) is None


def test_arrays_are_kept_in_memory_of_their_own() -> None:
    own = ResponseCache(1 << 20).of_version(fixed=True)
    texts = np.array([b"a", b"bc"], object)
    batch = np.arange(8, dtype=np.float32)
    kept(own, call_of(texts), batch[2:4])
    batch[:] = 0
    texts[0] = b"changed"
    (answer,) = found_for(own, call_of(np.array([b"a", b"bc"], object))) or [b""]
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == [2, 3]
    assert not answer.flags.writeable
    assert found_for(own, call_of(texts)) is None


def test_an_answer_that_would_take_an_eighth_is_not_kept() -> None:
    cache = ResponseCache(8 * 10_000)
    own = cache.of_version(fixed=True)
    kept(own, call_of(b"x"), bytes(9_000))
    assert len(cache) == 1
    kept(own, call_of(b"y"), bytes(10_000))
    assert len(cache) == 1


def test_what_is_counted_is_what_is_held() -> None:
    cache = ResponseCache(1 << 30)
    own = cache.of_version(fixed=True)
    calls = [call_of(place.to_bytes(16, "little") * 4) for place in range(2000)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for place, call in enumerate(calls):
            kept(own, call, place.to_bytes(8, "little") * 2)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.size_bytes >= (after - before) * 0.9


def test_what_a_version_has_is_dropped_in_parts() -> None:
    cache = ResponseCache(1 << 26)
    one, other = cache.of_version(fixed=True), cache.of_version(fixed=True)
    kept(other, call_of(b"other"), b"stays")
    for place in range(9000):
        kept(one, call_of(place.to_bytes(4, "little")), b"")
    later: list[tuple[object, ...]] = []
    one.clear(lambda *step: later.append(step))
    turns = 0
    while later:
        function, *arguments = later.pop()
        function(*arguments)  # type: ignore[operator]
        turns += 1
    assert turns == 2
    assert len(cache) == 1
    assert found_for(other, call_of(b"other")) == [b"stays"]


CACHES = "response_cache { enable: true }"


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    root = tmp_path / "models"
    models.write_version(root, "affine", "1", models.affine(2.0), config=CACHES)
    models.write_version(root, "affine", "2", models.affine(3.0), config=CACHES)
    models.write_version(root, "fragile", "1", models.fragile(), config=CACHES)
    models.write_version(root, "plain", "1", models.affine(2.0))
    async with staged(tmp_path, shared=SharedRunState(cache=ResponseCache(1 << 20))) as made:
        yield made


async def test_hits_are_answered_counted_and_logged_without_a_run(stage: Stage) -> None:
    stage.route("affine")
    first = await stage.infer("affine", floats(1, 2))
    second = await stage.infer("affine", floats(1, 2))
    third = await stage.infer("affine", floats(1, 3))
    assert [call.cache_key == CACHED for call in (first, second, third)] == [False, True, False]
    assert outputs_of(second)[0].tolist() == outputs_of(first)[0].tolist() == (floats(1, 2) * 2).tolist()
    assert stage.codes("affine", "1", "old") == {"0": 3}
    series = stage.sums("series", "affine", "1", "old")
    assert (whole(series, "cache", "hit"), whole(series, "cache", "miss")) == (1, 2)
    assert len(await stage.rows()) == 3
    assert sorted(row.infer_us < 0 for row in await stage.rows()) == [False, False, True]
    stage.route("affine", strategy={"pinned": {"arm": "new"}})
    assert outputs_of(await stage.infer("affine", floats(1, 2)))[0].tolist() == (floats(1, 2) * 3).tolist()
    assert stage.idle()


async def test_errors_and_requests_that_ask_for_a_run_are_not_kept(stage: Stage) -> None:
    for _ in range(2):
        call = await stage.infer("fragile", np.array([9], np.int64))
        assert call.error is not None
    for _ in range(2):
        call = stage.begin("affine")
        call.cache_key = UNCACHED
        assert (await stage.end(stage.submit(call, floats(5)))).cache_key == UNCACHED
    assert (await stage.infer("affine", floats(5))).cache_key != CACHED
    for _ in range(2):
        assert (await stage.infer("plain", floats(5))).cache_key == 0


async def test_the_same_request_twice_at_once_runs_twice(stage: Stage) -> None:
    calls = [stage.submit(stage.begin("affine"), floats(7)) for _ in range(2)]
    for call in calls:
        assert (await stage.end(call)).cache_key != CACHED
    assert (await stage.infer("affine", floats(7))).cache_key == CACHED


async def test_an_unloaded_version_keeps_nothing(stage: Stage) -> None:
    cache = stage.engine._shared.cache
    assert cache is not None
    await stage.infer("affine", floats(7))
    assert len(cache) == 1
    await stage.catalog.unload("affine")
    await until(lambda: len(cache) == 0)
    assert cache.size_bytes == 0
