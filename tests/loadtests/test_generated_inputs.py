"""Inputs that are drawn by a model's metadata fit the model, whatever its datatypes and axes."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from gateway.errors import InvalidArgument
from gateway.tensor import Datatype
from loadtests.job.generated_inputs import generate, open_axes
from loadtests.job.model_signature import ModelSignature, SignatureInput
from loadtests.job.request_body import framed, grpc_body, rest_body
from loadtests.job.scenario_plan import InputPlan, PayloadPlan, TrafficPlan

PLAN = PayloadPlan(distinct=3)


def model(*inputs: tuple[str, Datatype, tuple[int, ...]]) -> ModelSignature:
    return ModelSignature("m", ("1",), tuple(SignatureInput(*one) for one in inputs))


@pytest.mark.parametrize("kind", Datatype)
def test_every_datatype_is_drawn_to_its_length(kind: Datatype) -> None:
    sets = generate(model(("x", kind, (-1, 3))), replace(PLAN, rows=2))
    assert len(sets) == 3
    assert len({one.raw for [one] in sets}) == 3
    for [one] in sets:
        assert (one.shape, one.datatype) == ((2, 3), kind)
        assert len(one.raw) == 6 * (kind.size or 12)  # texts of eight letters, each behind its length
    assert sets == generate(model(("x", kind, (-1, 3))), replace(PLAN, rows=2))
    assert sets != generate(model(("x", kind, (-1, 3))), replace(PLAN, rows=2, seed=2))


@pytest.mark.parametrize(
    ("inputs", "shapes"),
    [
        ([("x", Datatype.FP32, (-1, 4))], [(256, 4)]),
        ([("x", Datatype.FP32, (-1, -1))], [(1, 1024)]),  # a row gets longer before there are more
        ([("x", Datatype.FP32, (1, -1)), ("y", Datatype.INT64, (1, 2))], [(1, 1020), (1, 2)]),
        ([("x", Datatype.UINT8, (-1,)), ("y", Datatype.UINT8, (-1,))], [(2048,), (2048,)]),
    ],
)
def test_a_request_is_as_long_as_it_has_to_be(
    inputs: list[tuple[str, Datatype, tuple[int, ...]]], shapes: list[tuple[int, ...]]
) -> None:
    [first, *_] = generate(model(*inputs), replace(PLAN, size_bytes=4096))
    assert [one.shape for one in first] == shapes
    assert sum(len(one.raw) for one in first) >= 4096


def test_texts_get_longer_where_nothing_else_can() -> None:
    [[one], *_] = generate(model(("x", Datatype.BYTES, (1, 2))), replace(PLAN, size_bytes=1 << 20))
    assert len(one.raw) >= 1 << 20
    assert one.shape == (1, 2)
    with pytest.raises(InvalidArgument, match="requests of model 'm' have 8 bytes: it has no axis of any size"):
        generate(model(("x", Datatype.FP32, (1, 2))), replace(PLAN, size_bytes=1 << 20))


def test_a_plan_says_how_an_input_is_drawn() -> None:
    signature = model(("i", Datatype.INT8, (-1, -1)), ("t", Datatype.BYTES, (-1, 1)), ("f", Datatype.FP64, (-1, 1)))
    inputs = {
        "i": InputPlan(shape=(1, 50), low=-3, high=3),
        "t": InputPlan(texts=("AA", "UA")),
        "f": InputPlan(low=5, high=6),
    }
    for i, t, f in generate(signature, replace(PLAN, inputs=inputs)):
        numbers = np.frombuffer(i.raw, np.int8)
        assert (i.shape, t.values()[0] in ("AA", "UA")) == ((1, 50), True)
        assert -3 <= numbers.min() < numbers.max() <= 3
        assert 5 <= np.frombuffer(f.raw, "<f8")[0] <= 6
    assert open_axes(signature, PLAN) == ["input 'i' [-1, -1]: axis 1 has any size and is sent as 1 (--shape i=...)"]
    assert open_axes(signature, replace(PLAN, inputs=inputs)) == []


@pytest.mark.parametrize(
    ("name", "plan", "words"),
    [
        ("y", InputPlan(), "has no input 'y'; it has x"),
        ("x", InputPlan(shape=(1, 4)), r"shape \[1, 4\] does not fit input 'x' \[-1, 3\]"),
        ("x", InputPlan(texts=("a",)), "texts are for BYTES"),
        ("x", InputPlan(low=-1), "of UINT8 cannot hold -1 to 9"),
    ],
)
def test_a_plan_that_fits_nothing_is_refused(name: str, plan: InputPlan, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        generate(model(("x", Datatype.UINT8, (-1, 3))), replace(PLAN, inputs={name: plan}))


@pytest.mark.parametrize("kind", [Datatype.FP16, Datatype.BF16])
def test_json_has_no_half_floats(kind: Datatype) -> None:
    [[one], *_] = generate(model(("x", kind, (2,))), PLAN)
    with pytest.raises(InvalidArgument, match="JSON has no"):
        rest_body(TrafficPlan("t", model="m", protocol="rest-json"), (one,))
    assert rest_body(TrafficPlan("t", model="m", protocol="rest-binary"), (one,)).raw == one.raw


def test_an_id_is_put_to_a_message_that_is_made_already() -> None:
    from gateway.pb import inference_pb2 as pb

    [inputs, *_] = generate(model(("x", Datatype.FP32, (-1, 4))), PLAN)
    frame = framed(grpc_body(TrafficPlan("t", model="m", version="2"), inputs), b"load-1")
    assert (frame[0], int.from_bytes(frame[1:5], "big")) == (0, len(frame) - 5)
    request = pb.ModelInferRequest.FromString(frame[5:])
    assert (request.id, request.model_name, request.model_version) == ("load-1", "m", "2")
    assert request.raw_input_contents[0] == inputs[0].raw
    assert prod(request.inputs[0].shape) == 4
