"""Each bad request has its code, and the next good one on the same connection is answered right."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio

from gateway.errors import Code
from gateway.pb import inference_pb2 as pb
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from tests import models
from tests.api.calls import endless, executions, fails, good, is_well, plain, series_count, slow, until
from tests.api.stand import MAX_ANSWER_BYTES, Stand, standing
from tests.models import write_version

pytestmark = pytest.mark.asyncio(loop_scope="session")

IA, NF, UI, FP, RE = (
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.UNIMPLEMENTED,
    Code.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED,
)


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _well_after(stand: Stand) -> AsyncIterator[None]:
    yield
    await is_well(stand)


# ---- tables A and B: the stated code ----


def changed(**fields: object) -> pb.ModelInferRequest:
    """The good request with other fields; `tensor`, `raw` and `parameter` reach inside."""
    request = good()
    for name, value in fields.items():
        if name == "tensor":
            request.inputs[0].MergeFrom(value)  # type: ignore[arg-type]
        elif name == "raw":
            del request.raw_input_contents[:]
            request.raw_input_contents.extend(value)  # type: ignore[arg-type]
        elif name == "shape":
            del request.inputs[0].shape[:]
            request.inputs[0].shape.extend(value)  # type: ignore[arg-type]
        elif name == "output":
            request.outputs.add(name=str(value))
        elif name == "parameter":
            key, parameter = value  # type: ignore[misc]
            request.parameters[key].CopyFrom(parameter)  # type: ignore[has-type]
        else:
            setattr(request, name, value)
    return request


_Tensor = pb.ModelInferRequest.InferInputTensor
_Parameter = pb.InferParameter
_Contents = pb.InferTensorContents
SHARED = _Tensor(parameters={"shared_memory_region": _Parameter(string_param="r")})

REFUSED = {
    "A1 no inputs": (IA, pb.ModelInferRequest(model_name="affine")),
    "A1 too many": (IA, pb.ModelInferRequest(model_name="affine", inputs=[_Tensor(name="x")] * 2)),
    "A2 unknown input": (IA, changed(tensor=_Tensor(name="z"))),
    "A4 datatype": (IA, changed(tensor=_Tensor(datatype="FP64"))),
    "A5 datatype": (IA, changed(tensor=_Tensor(datatype="FP32\0"))),
    "A6 dimension": (IA, changed(shape=[1, 5])),
    "A6 rank 0": (IA, changed(shape=[])),
    "A7 -1": (IA, changed(shape=[-1, 4])),
    "A7 -1 times -4": (IA, changed(shape=[-1, -4])),
    "A8 smallest": (IA, changed(shape=[-(2**63), 4])),
    "A10 huge": (IA, changed(shape=[2**40, 4], raw=[b""])),
    "A11 rank": (IA, changed(shape=[1] * 10_000)),
    "A11 zeros": (IA, changed(shape=[0] * 1_000_000)),
    "A13 batch": (IA, good(9)),
    "A14 no data": (IA, changed(raw=[])),
    "A16 short": (IA, changed(raw=[bytes(15)])),
    "A16 long": (IA, changed(raw=[bytes(17)])),
    "A16 none": (IA, changed(raw=[b""])),
    "A16 twice": (IA, changed(raw=[bytes(32)])),
    "A17 mixed": (IA, changed(tensor=_Tensor(contents=_Contents(fp32_contents=[1, 2, 3, 4])))),
    "A18 two fields": (
        IA,
        changed(raw=[], tensor=_Tensor(contents=_Contents(fp32_contents=[1] * 4, int_contents=[1] * 4))),
    ),
    "A19 other field": (IA, changed(raw=[], tensor=_Tensor(contents=_Contents(fp64_contents=[1] * 4)))),
    "A20 count": (IA, changed(raw=[], tensor=_Tensor(contents=_Contents(fp32_contents=[1] * 3)))),
    "A31 output": (IA, changed(output="z")),
    "A33 wrong type": (IA, changed(parameter=("timeout", _Parameter(bool_param=True)))),
    "A33 unset": (IA, changed(parameter=("a", _Parameter()))),
    "A33 reserved": (IA, changed(parameter=("triton_x", _Parameter(bool_param=True)))),
    "A33 headers": (IA, changed(parameter=("headers", _Parameter(string_param="x")))),
    "A34 priority": (IA, changed(parameter=("priority", _Parameter(int64_param=-1)))),
    "A34 timeout": (IA, changed(parameter=("timeout", _Parameter(int64_param=-1)))),
    "A35 size": (IA, changed(parameter=("a", _Parameter(string_param="x" * 10**6)))),
    "A36 long id": (IA, changed(id="i" * 10**6)),
    "A36 newline": (IA, changed(id="a\nb")),
    "A36 escape": (IA, changed(id="\x1b[31m")),
    "A37 shared memory": (UI, changed(tensor=SHARED)),
    "B41 empty name": (IA, changed(model_name="")),
    "B42 unknown model": (NF, changed(model_name="nobody")),
    "B42 unknown version": (NF, changed(model_version="9")),
    "B42 unknown label": (NF, changed(model_version="stable")),
    "B43 path": (IA, changed(model_version="../")),
    "B43 escaped path": (IA, changed(model_version="%2e%2e")),
    "B45 negative": (IA, changed(model_version="-1")),
    "B45 overflow": (IA, changed(model_version="9" * 20)),
    "B45 float": (IA, changed(model_version="1e3")),
    "B45 full width": (IA, changed(model_version="\uff11")),
    "B46 failed": (FP, changed(model_name="broken", model_version="1")),
    "B46 failed, newest": (FP, changed(model_name="broken", model_version="")),
    "B47 parent": (IA, changed(model_name="../etc")),
    "B47 inside": (IA, changed(model_name="m/sub")),
    "B47 space": (IA, changed(model_name=" ..")),
    "B49 nul": (IA, changed(model_name="a\0b")),
    "B49 pattern": (IA, changed(model_name="a*")),
    "B50 mark": (IA, changed(model_name="a\u202e")),
    "B50 megabyte": (IA, changed(model_name="a" * 10**6)),
}


@pytest.mark.parametrize("row", REFUSED)
async def test_bad_requests_have_their_code(stand: Stand, row: str) -> None:
    code, request = REFUSED[row]
    for _ in range(2):
        assert (await fails(stand, request))[0] is code


async def test_a3_a13_a32_a35_requests_with_too_much(stand: Stand) -> None:
    request = good()
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])
    assert (await fails(stand, request))[0] is IA
    many = good()
    for index in range(100_000):
        many.outputs.add(name=str(index))
    assert (await fails(stand, many))[0] is IA
    parameters = good()
    for index in range(10_000):
        parameters.parameters[str(index)].bool_param = True
    assert (await fails(stand, parameters))[0] is IA
    twice = good()  # as Triton has it
    twice.outputs.add(name="y")
    twice.outputs.add(name="y")
    assert [output.name for output in (await stand.stub.ModelInfer(twice, timeout=10)).outputs] == ["y"]
    differing = pb.ModelInferRequest(model_name="simple", raw_input_contents=[bytes(64), bytes(128)])
    differing.inputs.add(name="INPUT0", datatype="INT32", shape=[1, 16])
    differing.inputs.add(name="INPUT1", datatype="INT32", shape=[2, 16])
    code, text = await fails(stand, differing)
    assert code is IA
    assert "batch size does not match" in text


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BYTES", b"\xff\xff\xff\xffabcd"),
        ("BYTES", b"\0\0\0\0\0\0\0\0\0\0"),
        ("BYTES", b"\2\0\0\0\xff\xfe\0\0\0\0"),
        ("BOOL", b"\0\2"),
    ],
)
async def test_a23_to_a28_broken_elements(stand: Stand, datatype: str, data: bytes) -> None:
    request = pb.ModelInferRequest(model_name=f"echo-{datatype}", raw_input_contents=[data])
    request.inputs.add(name="x", datatype=datatype, shape=[1, 2])
    assert (await fails(stand, request))[0] is IA


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
async def test_a22_half_floats_in_typed_contents(stand: Stand, datatype: str) -> None:
    request = pb.ModelInferRequest(model_name=f"echo-{datatype}")
    request.inputs.add(name="x", datatype=datatype, shape=[1, 2], contents=_Contents(fp32_contents=[1, 2]))
    assert (await fails(stand, request))[0] is IA


async def test_a38_an_answer_over_the_limit(stand: Stand) -> None:
    request = pb.ModelInferRequest(model_name="wide", raw_input_contents=[bytes(MAX_ANSWER_BYTES)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, MAX_ANSWER_BYTES // 4])
    code, text = await fails(stand, request)
    assert code is RE
    assert f"the limit is {MAX_ANSWER_BYTES}" in text


async def test_a40_an_error_of_the_model_stays_its_own(stand: Stand) -> None:
    def gather(index: int) -> pb.ModelInferRequest:
        request = pb.ModelInferRequest(model_name="gather", id=f"i{index}")
        request.inputs.add(name="i", datatype="INT64", shape=[1])
        request.raw_input_contents.append(np.array([index], np.int64).tobytes())
        return request

    answers = await asyncio.gather(
        *(stand.stub.ModelInfer(gather(99 if index % 2 else 3)) for index in range(100)), return_exceptions=True
    )
    for index, answer in enumerate(answers):
        if index % 2:
            assert isinstance(answer, grpc.aio.AioRpcError)
            assert answer.code() is grpc.StatusCode.INTERNAL
            assert answer.details() == "internal error (request i99)"
        else:
            assert isinstance(answer, pb.ModelInferResponse) or answer.raw_output_contents  # type: ignore[union-attr]
            assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [3.0]  # type: ignore[union-attr]


async def test_b42_unknown_models_are_all_refused_alike(stand: Stand) -> None:
    before = series_count(stand)
    texts = set()
    for index in range(50):
        code, text = await fails(stand, changed(model_name=f"nobody-{index}"))
        assert code is NF
        texts.add(text.replace(f"nobody-{index}", ""))
    assert len(texts) == 1
    after = series_count(stand)
    assert after == before


# ---- table E ----


async def test_e82_bytes_that_are_no_message(stand: Stand) -> None:
    infer = plain(stand)
    for message in (
        b"\xff" * 100,
        b"\x0a\x02\xff\xfe",
        b"\x0b" * 10_000,
        b"\x2a\x05\x0a\x80",
        b"\x3a\xff\xff\xff\xff\x0f",
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(message)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_e89_a_deadline_that_has_passed_runs_nothing(stand: Stand) -> None:
    runs = await executions(stand, "slow")
    code, _ = await fails(stand, slow(), limit_s=0)
    assert code is Code.DEADLINE_EXCEEDED
    assert await executions(stand, "slow") == runs


async def test_e91_a_cancelled_request_frees_its_place(stand: Stand) -> None:
    calls = [stand.stub.ModelInfer(endless()) for _ in range(5)]
    await until(lambda: stand.engine.in_flight == 5)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await until(lambda: stand.engine.in_flight == 0)


async def test_the_timeout_parameter_ends_nothing_that_runs_or_may_wait(stand: Stand) -> None:
    request = slow()
    request.parameters["timeout"].int64_param = 1
    answers = await asyncio.gather(*(stand.stub.ModelInfer(request, timeout=30) for _ in range(2)))
    assert [answer.model_name for answer in answers] == ["slow", "slow"]


async def test_the_timeout_parameter_limits_the_wait_where_the_configuration_allows_it(stand: Stand) -> None:
    first, second = slow(), slow()
    first.model_name = second.model_name = "hasty"
    second.parameters["timeout"].int64_param = 1000
    running = [stand.stub.ModelInfer(first, timeout=30) for _ in range(2)]  # one for each thread
    await until(lambda: stand.engine.in_flight == 2)
    code, text = await fails(stand, second, limit_s=30)
    assert code is Code.DEADLINE_EXCEEDED
    assert "waited in the queue" in text
    await asyncio.gather(*running)


async def test_a_deadline_ends_a_running_request(stand: Stand) -> None:
    code, _ = await fails(stand, endless(), limit_s=0.05)
    assert code is Code.DEADLINE_EXCEEDED
    await until(lambda: stand.engine.in_flight == 0)


# The client's own backoff is so long that a call which is answered in time was told when to come again.
PATIENT = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "60s",
                "maxBackoff": "60s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


@pytest.mark.parametrize("transport", ["ngh2", "grpcio"])
async def test_admission_refuses_what_is_too_much_and_says_when_to_come_again(
    transport: str, tmp_path: Path, probes: Path
) -> None:
    write_version(tmp_path / "models", "slow", "1", models.slow(2000))
    async with standing(tmp_path / "models", tmp_path, probes=probes, max_requests=2, transport=transport) as small:
        answers = await asyncio.gather(*(small.stub.ModelInfer(slow()) for _ in range(50)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert 0 < len(refused) < len(answers)
        for error in refused:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            said: Any = error.trailing_metadata()
            assert 50 <= int(dict(said)["grpc-retry-pushback-ms"]) < 250
        options = (("grpc.service_config", json.dumps(PATIENT)), ("grpc.use_local_subchannel_pool", 1))
        async with grpc.aio.insecure_channel(small.address, options=options) as channel:
            stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
            served = await asyncio.gather(*(stub.ModelInfer(slow(), timeout=10) for _ in range(12)))
            assert [answer.model_version for answer in served] == ["1"] * 12
        small.engine.drain()
        code, _ = await fails(small, slow())
        assert code is Code.UNAVAILABLE


async def test_what_could_not_be_read_is_in_the_log(stand: Stand) -> None:
    """Also where the shapes of a version's inputs are open, so that a record needs those of its own."""
    before = stand.log.counts()
    request = pb.ModelInferRequest(model_name="wide", raw_input_contents=[b"abc"])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    code, _ = await fails(stand, request)
    assert code is Code.INVALID_ARGUMENT
    await until(lambda: not stand.log.counts().buffered)
    after = stand.log.counts()
    assert after.dropped == before.dropped
    assert after.written > before.written
