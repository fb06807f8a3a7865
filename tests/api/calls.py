"""Calls over a real connection, and what has to be true after each of them."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import numpy as np
import pytest

from gateway.errors import Code
from gateway.pb import inference_pb2 as pb
from gateway.rpc.status_codes import STATUS
from gateway.telemetry.sums import branch
from tests.api.stand import Stand
from tests.machine_load import as_loaded

_INTERNALS = re.compile(r"(?i)traceback|\.py\b|/work|/tmp|/home|0x[0-9a-f]{6}|onnxruntime|numpy")


def good(rows: int = 1, *, model: str = "affine", version: str = "1") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, model_version=version, id="good")
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
    request.raw_input_contents.append(np.arange(rows * 4, dtype=np.float32).tobytes())
    return request


async def fails(stand: Stand, request: pb.ModelInferRequest, limit_s: float = 10) -> tuple[Code, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stand.stub.ModelInfer(request, timeout=limit_s)
    codes = {status: code for code, status in STATUS.items()}
    details = caught.value.details() or ""
    assert details.isprintable()
    assert len(details) < 700
    assert _INTERNALS.search(details) is None
    return codes[caught.value.code()], details


def plain(stand: Stand) -> Callable[[bytes], Awaitable[bytes]]:
    """ModelInfer with messages as bytes."""
    return stand.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", bytes, bytes)


def series_count(stand: Stand) -> int:
    return len(branch(stand.counters.snapshot(), "sums", "series"))


async def is_well(stand: Stand) -> None:
    """The next call on the same connection is right, and nothing is held."""
    response = await stand.stub.ModelInfer(good(2), timeout=10)
    assert response.id == "good"
    assert np.frombuffer(response.raw_output_contents[0], np.float32).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert stand.engine.in_flight == 0


async def until(true: Callable[[], bool]) -> None:
    """Lets the loop turn until it is true."""
    async with asyncio.timeout(as_loaded(10)):
        while not true():  # noqa: ASYNC110 (the engine has no event for it)
            await asyncio.sleep(0)


def slow() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="slow", raw_input_contents=[bytes(256)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 64])
    return request


def endless() -> pb.ModelInferRequest:
    """A call whose run ends only if somebody stops it."""
    request = pb.ModelInferRequest(model_name="turns", raw_input_contents=[bytes(256), (1 << 60).to_bytes(8, "little")])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 64])
    request.inputs.add(name="n", datatype="INT64", shape=[1])
    return request


async def executions(stand: Stand, model: str) -> int:
    response = await stand.stub.ModelStatistics(pb.ModelStatisticsRequest(name=model))
    return int(response.model_stats[0].execution_count)
