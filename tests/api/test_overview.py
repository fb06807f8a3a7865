"""GetOverview: what is in force, and what could not be had."""

import msgspec
import pytest

from gateway.pb import control_pb2 as pb
from tests.api.operated import Operated
from tests.api.routes import ab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_it_holds_the_rules_and_says_what_is_unknown(op: Operated) -> None:
    revision = await op.apply(ab())
    answer = await op.stub.GetOverview(pb.GetOverviewRequest())
    told = msgspec.json.decode(answer.overview_json)
    [route] = told["routes"]
    assert (route["model"], route["revision"], route["shares"]) == ("affine", revision, {"a": 50.0, "b": 50.0})
    assert {one["model"] for one in told["models"]} == {"affine", "other"}
    assert told["history"][0]["revision"] == revision
    assert told["host"] is None
    assert list(told["unknown"]) == ["host"]
