"""What a caller may not send, or not now, is refused before it is read: to read it is what costs."""

import json
from pathlib import Path

import grpc
import grpc.aio
import pytest

from gateway.access.permissions import RPCS, Scope
from gateway.access.principal import Role
from gateway.api.varint import varint
from gateway.rest.rest_service import INFER_PATHS, PREDICT_PATHS
from tests.access.guarded import Guarded, header, token_of
from tests.access.test_quota_calls import code_of, limited
from tests.api.calls import good
from tests.api.operated import Operated
from tests.rest.asking import ask

pytestmark = pytest.mark.asyncio(loop_scope="session")
MODEL_QUOTA = {"quotas": [{"name": "q", "models": ["affine"], "requests-per-second": 0.001}]}


def field(number: int, data: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + varint(len(data)) + data


# Each names its model, and then has what costs much, and is refused by name, when it is read.
_V2 = field(1, b"affine") + field(5, field(1, b"x") + field(5, b"\x10\x05" * (1 << 17)))
_SPEC = field(1, field(1, b"affine"))
_EXAMPLES = _SPEC + field(2, field(1, field(1, b"") * (1 << 14)))
EXPENSIVE = {
    "/inference.GRPCInferenceService/ModelInfer": _V2,
    "/inference.GRPCInferenceService/ModelStreamInfer": _V2,
    "/tensorflow.serving.PredictionService/Predict": _SPEC + field(2, field(1, b"x") + field(2, b"\x08\x07" * 1000)),
    "/tensorflow.serving.PredictionService/Classify": _EXAMPLES,
    "/tensorflow.serving.PredictionService/Regress": _EXAMPLES,
}
READ = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}


async def status(port: Guarded, path: str, caller: str) -> tuple[grpc.StatusCode, str]:
    streams = "Stream" in path
    call = port.call(path, request_streaming=streams, response_streaming=streams)
    metadata = (*header(caller), ("triton_grpc_error", "true"))  # of a stream, errors as its status
    body = EXPENSIVE[path]
    try:
        if streams:
            async for _ in call(iter((body,)), metadata=metadata, timeout=10):
                break
        else:
            await call(body, metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""


async def test_every_inference_is_looked_at() -> None:
    by_model = {path for path, needed in RPCS.items() if needed.scope is Scope.HANDLER and Role.INFER in needed.roles}
    assert set(EXPENSIVE) == by_model - {"/gateway.v1.Control/SendFeedback"}


@pytest.mark.parametrize("path", EXPENSIVE)
async def test_by_the_role_on_the_model(port: Guarded, path: str) -> None:
    assert (await status(port, path, "infer"))[0] in READ
    assert (await status(port, path, "other"))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("transport", ["ngh2", "grpcio"])
async def test_by_the_quota_of_the_model(worker: Operated, transport: str, tmp_path: Path) -> None:
    async with limited(worker, transport, tmp_path, MODEL_QUOTA) as (port, quotas):
        assert await code_of(port.inference.ModelInfer(good(), metadata=header("infer"))) is grpc.StatusCode.OK
        for path in EXPENSIVE:
            code, text = await status(port, path, "infer")
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED, (path, text)
            assert "quota 'q' is used up" in text
        token = {"authorization": f"Bearer {token_of('infer')}"}
        for path in (*INFER_PATHS, *PREDICT_PATHS):
            path = path.format(model="affine", version="1")
            body = b"[" * 1000
            assert (await ask(port, "POST", path, body, token)).status == 429, path
            foreign = {"authorization": f"Bearer {token_of('other')}"}
            assert (await ask(port, "POST", path, body, foreign)).status == 404, path
        assert quotas.in_use() == {"q": {"": 0}}


async def test_what_a_request_is_filled_up_to_is_owed(worker: Operated, tmp_path: Path) -> None:
    """A few bytes of TensorFlow Serving's protocol stand for many: those count."""
    shape = field(2, field(2, b"\x08\x80\x01") + field(2, b"\x08\x04"))
    tensor = b"\x08\x01" + shape + field(5, b"\0\0\0\0")
    message = field(1, field(1, b"affine") + field(2, b"\x08\x01")) + field(2, field(1, b"x") + field(2, tensor))
    document = {"quotas": [{"name": "q", "bytes-per-second": 1_000_000}]}
    async with limited(worker, "ngh2", tmp_path, document) as (port, quotas):
        call = port.call(
            "/tensorflow.serving.PredictionService/Predict", request_streaming=False, response_streaming=False
        )
        await call(message, metadata=header("infer"), timeout=10)
        assert json.loads(json.dumps(quotas.sums()))["q"][""]["bytes"] == 128 * 4 * 4
