"""The request's own priority: it counts where the quota file lets it, and decides who is shed and who runs first."""

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from gateway.access.priority import LADDER, Priority
from gateway.access.quota_rules import parse_rules
from gateway.access.quotas import Quotas
from gateway.pb import inference_pb2 as pb
from tests import models
from tests.api.stand import Stand, standing
from tests.serving.stage import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
RULES = {
    "priorities": [
        {"class": "sheddable", "models": ["open"], "request-priority": True},
        {"class": "default", "models": ["closed"]},
    ]
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    directory = tmp_path_factory.mktemp("priority")
    for name in ("open", "closed"):
        models.write_version(directory / "models", name, "1", models.slow(20_000, features=4))
    quotas = Quotas(parse_rules(RULES), workers=1, refused=lambda code: None)
    probes = tmp_path_factory.getbasetemp() / "probes"
    async with standing(
        directory / "models", directory / "data", probes=probes, max_requests=20, quotas=quotas,
        ladder=tuple(LADDER.values()),
    ) as made:  # fmt: skip
        yield made


def request(model: str, priority: int | None = None) -> pb.ModelInferRequest:
    asked = pb.ModelInferRequest(model_name=model, raw_input_contents=[bytes(16)])
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    if priority is not None:
        asked.parameters["priority"].int64_param = priority
    return asked


async def test_a_full_worker_takes_only_the_classes_that_are_left(stand: Stand) -> None:
    running = [stand.stub.ModelInfer(request("closed"), timeout=60) for _ in range(19)]
    await until(lambda: stand.engine.in_flight == 19)
    refused = [
        ("open", None, Priority.SHEDDABLE),
        ("open", 2, Priority.DEFAULT),
        ("open", 9, Priority.SHEDDABLE),
        ("closed", 1, Priority.DEFAULT),  # nobody lets it say so
    ]
    for model, priority, expected in refused:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stand.stub.ModelInfer(request(model, priority))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"for its class ({expected + 1} of 3)" in str(caught.value.details())
    critical = stand.stub.ModelInfer(request("open", 1), timeout=60)
    await until(lambda: stand.engine.in_flight == 20)
    for call in (*running, critical):
        assert await call.code() is grpc.StatusCode.OK
