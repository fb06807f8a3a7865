"""Answers from the cache as clients see them."""

import numpy as np
import pytest

from gateway.pb import inference_pb2 as pb
from tests.api.calls import good
from tests.api.stand import Stand

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def asked(stand: Stand, request: pb.ModelInferRequest) -> tuple[list[float], str]:
    """The answer, and what its metadata say of the cache."""
    call = stand.stub.ModelInfer(request, timeout=10)
    answer = await call
    metadata = dict(await call.trailing_metadata() or ())
    values = np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()
    return values, str(metadata.get("x-gateway-cache", ""))


async def test_a_hit_is_marked_and_counted_and_a_request_may_ask_for_a_run(stand: Stand) -> None:
    request = good(2, model="cached")
    values, mark = await asked(stand, request)
    assert mark == ""
    request.id = "another"
    assert await asked(stand, request) == (values, "hit")
    request.parameters["response_cache"].bool_param = False
    assert await asked(stand, request) == (values, "")
    statistics = await stand.stub.ModelStatistics(pb.ModelStatisticsRequest(name="cached"))
    (stats,) = statistics.model_stats
    counts = stats.inference_stats
    assert (counts.cache_hit.count, counts.cache_miss.count, counts.success.count) == (1, 1, 3)
    assert (counts.compute_infer.count, stats.execution_count) == (2, 2)


async def test_without_the_field_nothing_is_kept(stand: Stand) -> None:
    for _ in range(2):
        _, mark = await asked(stand, good(3))
        assert mark == ""
