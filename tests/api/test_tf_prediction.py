"""TensorFlow Serving's clients, by stubs of the same field numbers: predictions, metadata, states."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import numpy as np
import pytest
import pytest_asyncio

from gateway.api.tfserving.example_columns import read_input
from gateway.api.tfserving.tensor_proto import CARRIED
from gateway.api.varint import varint
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.pb import tensorflow_pb2 as tf
from gateway.pb import tensorflow_serving_pb2 as tfs
from gateway.pb.tensorflow_serving_pb2_grpc import ModelServiceStub, PredictionServiceStub
from gateway.routing.decision.route import propose
from gateway.routing.document.document import parse
from gateway.tensor import Array
from tests.api.calls import is_well
from tests.api.conftest import NUMBERS
from tests.api.stand import Stand
from tests.api.test_tensor_proto import array_of, listed, typed

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _well_after(stand: Stand) -> AsyncIterator[None]:
    yield
    await is_well(stand)


def predictions(stand: Stand) -> PredictionServiceStub:
    return PredictionServiceStub(stand.channel)  # type: ignore[no-untyped-call]


def floats(array: Array) -> tf.TensorProto:
    """As `tf.make_tensor_proto` sends an array."""
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in array.shape])
    return tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=shape, tensor_content=array.astype("<f4").tobytes())


def predict(model: str, **inputs: tf.TensorProto) -> tfs.PredictRequest:
    return tfs.PredictRequest(model_spec=tfs.ModelSpec(name=model), inputs=inputs)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def test_a_prediction_names_the_version_that_made_it(stand: Stand) -> None:
    x = np.arange(8, dtype="<f4").reshape(2, 4)
    for _ in range(2):  # its like is remembered
        call = predictions(stand).Predict(predict("affine", x=floats(x)))
        answer = await call
        assert list(answer.outputs) == ["y"]
        assert answer.outputs["y"].float_val == (x * 3).reshape(-1).tolist()
        assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [2, 4]
        assert (answer.model_spec.name, answer.model_spec.version.value) == ("affine", 2)
        assert answer.model_spec.signature_name == "serving_default"
        trailers = dict(await call.trailing_metadata())
        assert trailers["x-gateway-version"] == "2"
    request = predict("affine", x=floats(x))
    request.model_spec.version.value = 1
    request.output_filter.append("y")
    assert (await predictions(stand).Predict(request)).outputs["y"].float_val == (x * 2).reshape(-1).tolist()


async def test_every_datatype_comes_back_as_it_went(stand: Stand) -> None:
    sent = {f"x-{one.wire_name}": typed(one, (2, 2), listed(one, array_of(one, (2, 2), 3))) for one in NUMBERS}
    answer = await predictions(stand).Predict(predict("echo", **sent))
    assert {f"x{name[1:]}": tensor for name, tensor in answer.outputs.items()} == sent
    for one in set(CARRIED) - set(NUMBERS):
        tensor = typed(one, (2, 2), listed(one, array_of(one, (2, 2), 3)))
        answer = await predictions(stand).Predict(predict(f"echo-{one.wire_name}", x=tensor))
        assert answer.outputs["y"] == tensor


async def test_the_route_decides_as_for_every_other_client(stand: Stand) -> None:
    document = parse(
        {
            "apiVersion": "gateway/v1",
            "kind": "Route",
            "metadata": {"model": "affine"},
            "spec": {
                "arms": {"old": {"version": "1"}, "new": {"version": "2"}},
                "strategy": {"pinned": {"arm": "old"}},
                "labels": {"next": "2"},
                "rules": [{"name": "beta", "match": {"metadata": {"tier": {"exact": "beta"}}}, "arm": "new"}],
            },
        }
    )
    before = stand.rules.snapshot
    stand.rules.snapshot = before.with_route(propose(document, None))
    try:
        request = predict("affine", x=floats(np.ones((1, 4))))
        assert (await predictions(stand).Predict(request)).model_spec.version.value == 1
        answer = await predictions(stand).Predict(request, metadata=(("tier", "beta"),))
        assert answer.model_spec.version.value == 2
        request.model_spec.version_label = "next"
        assert (await predictions(stand).Predict(request)).model_spec.version.value == 2
    finally:
        stand.rules.snapshot = before


def of(name: str, **fields: Any) -> tfs.PredictRequest:
    return tfs.PredictRequest(model_spec=tfs.ModelSpec(name=name, **fields), inputs={"x": floats(np.ones((1, 4)))})


REFUSED: dict[str, tuple[tfs.PredictRequest, grpc.StatusCode, str]] = {
    "no model_spec": (tfs.PredictRequest(), grpc.StatusCode.INVALID_ARGUMENT, "no model_spec"),
    "no name": (tfs.PredictRequest(model_spec=tfs.ModelSpec(signature_name="")), grpc.StatusCode.INVALID_ARGUMENT, ""),
    "unknown model": (of("nosuch"), grpc.StatusCode.NOT_FOUND, "nosuch"),
    "unknown version": (of("affine", version={"value": 9}), grpc.StatusCode.NOT_FOUND, "version '9'"),
    "negative version": (of("affine", version={"value": -1}), grpc.StatusCode.INVALID_ARGUMENT, "'-1'"),
    "signature": (of("affine", signature_name="train"), grpc.StatusCode.INVALID_ARGUMENT, "signature_name is 'train'"),
    "input": (
        predict("affine", z=floats(np.ones((1, 4)))),
        grpc.StatusCode.INVALID_ARGUMENT,
        "unexpected inference input",
    ),
    "shape": (predict("affine", x=floats(np.ones((1, 5)))), grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape"),
    "tensor": (predict("affine", x=tf.TensorProto()), grpc.StatusCode.INVALID_ARGUMENT, "dtype DT_INVALID"),
    "none": (predict("affine"), grpc.StatusCode.INVALID_ARGUMENT, "missing required input"),
    "failed": (predict("broken", x=floats(np.ones((1, 4)))), grpc.StatusCode.FAILED_PRECONDITION, ""),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_wrong_is_refused_by_name(stand: Stand, case: str) -> None:
    request, code, words = REFUSED[case]
    error = await refused(predictions(stand).Predict(request))
    assert error.code() is code
    assert words in (error.details() or "")


async def test_an_output_that_is_not_there_is_refused(stand: Stand) -> None:
    request = of("affine")
    request.output_filter.append("z")
    assert "unexpected inference output 'z'" in ((await refused(predictions(stand).Predict(request))).details() or "")


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x05abc", b"\x12\x03\x0a\x01x"])
async def test_bytes_that_are_no_request_are_refused(stand: Stand, message: bytes) -> None:
    path = "/tensorflow.serving.PredictionService/"
    for method in ("Predict", "Classify", "Regress"):
        error = await refused(stand.channel.unary_unary(path + method, None, None)(message))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, method


async def test_the_log_has_the_prediction(stand: Stand) -> None:
    before = stand.counters.snapshot()
    await predictions(stand).Predict(of("affine", version={"value": 1}))
    assert stand.counters.snapshot() != before


async def test_metadata_tell_the_signatures_that_fit(stand: Stand) -> None:
    async def told(model: str) -> dict[str, tf.SignatureDef]:
        request = tfs.GetModelMetadataRequest(model_spec=tfs.ModelSpec(name=model), metadata_field=["signature_def"])
        answer = await predictions(stand).GetModelMetadata(request)
        assert answer.model_spec.name == model
        signatures = tfs.SignatureDefMap()
        assert answer.metadata["signature_def"].Unpack(signatures)
        return dict(signatures.signature_def)

    affine = await told("affine")
    assert set(affine) == {"serving_default", "classify"}  # [rows, 4] may be scores of four classes
    assert affine["serving_default"].method_name == "tensorflow/serving/predict"
    x = affine["serving_default"].inputs["x"]
    assert (x.name, x.dtype, [dim.size for dim in x.tensor_shape.dim]) == ("x", tf.DT_FLOAT, [-1, 4])
    assert set(await told("simple")) == {"serving_default"}
    assert set(await told("named")) == {"serving_default", "regress"}
    assert (await told("shapeless"))["serving_default"].inputs["x"].tensor_shape.unknown_rank
    for fields, words in (([], "metadata_field is empty"), (["all"], "'all' is not known")):
        request = tfs.GetModelMetadataRequest(model_spec=tfs.ModelSpec(name="affine"), metadata_field=fields)
        assert words in ((await refused(predictions(stand).GetModelMetadata(request))).details() or "")


async def test_states_are_those_of_the_catalog(stand: Stand) -> None:
    stub = ModelServiceStub(stand.channel)  # type: ignore[no-untyped-call]
    answer = await stub.GetModelStatus(tfs.GetModelStatusRequest(model_spec=tfs.ModelSpec(name="affine")))
    assert {one.version: one.state for one in answer.model_version_status} == {
        1: tfs.ModelVersionStatus.AVAILABLE,
        2: tfs.ModelVersionStatus.AVAILABLE,
    }
    one = tfs.ModelSpec(name="affine", version={"value": 1})
    answer = await stub.GetModelStatus(tfs.GetModelStatusRequest(model_spec=one))
    assert [status.version for status in answer.model_version_status] == [1]
    (failed,) = (
        await stub.GetModelStatus(tfs.GetModelStatusRequest(model_spec=tfs.ModelSpec(name="broken")))
    ).model_version_status
    assert (failed.state, failed.status.error_code) == (tfs.ModelVersionStatus.END, 9)
    assert failed.status.error_message
    for spec in (tfs.ModelSpec(name="nosuch"), tfs.ModelSpec(name="affine", version={"value": 7})):
        error = await refused(stub.GetModelStatus(tfs.GetModelStatusRequest(model_spec=spec)))
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_several_tasks_at_once_are_not_served(stand: Stand) -> None:
    error = await refused(predictions(stand).MultiInference(tfs.MultiInferenceRequest()))
    assert (error.code(), "Classify and Regress" in (error.details() or "")) == (grpc.StatusCode.UNIMPLEMENTED, True)


# ---- rows of features ----


def row(**features: Any) -> tf.Example:
    """An example; texts, whole numbers and others are told apart by the first value."""
    made = tf.Example()
    for name, values in features.items():
        kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
        getattr(made.features.feature[name], kinds[type(values[0])]).value.extend(values)
    return made


def classify(model: str, *rows: tf.Example) -> tfs.ClassificationRequest:
    return tfs.ClassificationRequest(
        model_spec=tfs.ModelSpec(name=model), input=tfs.Input(example_list=tfs.ExampleList(examples=rows))
    )


async def test_examples_are_classified_with_the_labels_of_the_configuration(stand: Stand) -> None:
    rows = np.eye(4, dtype="<f4")[:2] * 3
    for _ in range(2):
        answer = await predictions(stand).Classify(
            classify("classifier", *(row(x=[float(value) for value in one]) for one in rows))
        )
        asked = pb.ModelInferRequest(model_name="classifier", raw_input_contents=[rows.tobytes()])
        asked.inputs.add(name="x", datatype="FP32", shape=rows.shape)
        scores = np.frombuffer((await stand.stub.ModelInfer(asked)).raw_output_contents[0], "<f4").reshape(2, 3)
        told = [[(one.label, one.score) for one in each.classes] for each in answer.result.classifications]
        names = ("setosa", "versicolor", "virginica")
        assert told == [list(zip(names, each, strict=True)) for each in scores.tolist()]
        assert answer.model_spec.signature_name == "classify"
    context = tfs.ExampleListWithContext(examples=[tf.Example()], context=row(x=[1, 2, 3, 4]))
    request = classify("classifier")
    request.input.example_list_with_context.CopyFrom(context)
    assert len((await predictions(stand).Classify(request)).result.classifications) == 1


async def test_examples_become_numbers(stand: Stand) -> None:
    request = tfs.RegressionRequest(
        model_spec=tfs.ModelSpec(name="one"),
        input=tfs.Input(example_list=tfs.ExampleList(examples=[row(x=[2.0]), row(x=[3])])),
    )
    answer = await predictions(stand).Regress(request)
    assert [one.value for one in answer.result.regressions] == [2.0, 3.0]
    assert answer.model_spec.signature_name == "regress"


async def test_features_are_elements_where_the_configuration_names_them(stand: Stand) -> None:
    answer = await predictions(stand).Regress(
        tfs.RegressionRequest(
            model_spec=tfs.ModelSpec(name="named"),
            input=tfs.Input(example_list=tfs.ExampleList(examples=[row(height=[2.0], width=[5])])),
        )
    )
    assert [one.value for one in answer.result.regressions] == [7.0]


def with_context(rows: int, **features: Any) -> tfs.ClassificationRequest:
    given = tfs.ExampleListWithContext(examples=[tf.Example()] * rows, context=row(**features))
    return tfs.ClassificationRequest(
        model_spec=tfs.ModelSpec(name="classifier"), input=tfs.Input(example_list_with_context=given)
    )


async def test_a_context_stands_for_what_a_row_does_not_have(stand: Stand) -> None:
    answer = await predictions(stand).Classify(with_context(2, x=[1.0, 2.0, 3.0, 4.0], z=[1]))
    assert len(answer.result.classifications) == 2


EXAMPLES_REFUSED: dict[str, tuple[tfs.ClassificationRequest, str]] = {
    "many rows": (with_context((1 << 18) + 1, x=[1.0] * 4), "examples, the limit is 262144"),
    "long": (classify("classifier", row(x=[1.0] * (1 << 20))), "of examples 4194304 may come"),
    "long example": (
        classify("classifier", row(x=[1.0] * (1 << 18), y=[b""] * 4)),
        "the limit is 1048576: use Predict",
    ),
    "no row": (classify("classifier"), "no example is given"),
    "no feature": (classify("classifier", row(z=[1.0])), "example 0 has no feature 'x'"),
    "too few": (classify("classifier", row(x=[1.0])), "has 1 values, expected are 4"),
    "texts": (classify("classifier", row(x=[b"a"] * 4)), "is a bytes_list, a float_list is expected"),
    "no such output": (classify("simple", row(x=[1.0] * 4)), "use Predict"),
    "open input": (classify("wide", row(x=[1.0])), "use Predict"),
}


@pytest.mark.parametrize("case", EXAMPLES_REFUSED)
async def test_examples_that_do_not_fit_are_refused_by_name(stand: Stand, case: str) -> None:
    request, words = EXAMPLES_REFUSED[case]
    error = await refused(predictions(stand).Classify(request))
    assert (error.code(), words in (error.details() or "")) == (grpc.StatusCode.INVALID_ARGUMENT, True), error.details()


async def test_a_long_request_is_read_in_parts_as_it_is_read_whole() -> None:
    rows = [row(**{f"feature {place % 7}": [float(place)]}) for place in range(4000)]
    given = tfs.ExampleListWithContext(examples=rows, context=row(all=[1]))
    for input_ in (
        tfs.Input(example_list=tfs.ExampleList(examples=rows)),
        tfs.Input(example_list_with_context=given),
        tfs.Input(example_list=tfs.ExampleList(examples=[row(x=[b"a" * 100_000]), *rows[:2]])),
    ):
        request = tfs.ClassificationRequest(model_spec=tfs.ModelSpec(name="m"), input=input_)
        message = request.SerializeToString()
        assert read_input(message) == request
        for broken in (message[:-1], message + b"\x0b"):
            with pytest.raises(InvalidArgument, match="have no model_spec and input"):
                read_input(broken)


async def test_no_part_of_a_long_request_is_left_out_unsaid() -> None:
    """Messages may hold a field many times, whose parts count together."""
    part = tfs.Input(example_list=tfs.ExampleList(examples=[row(x=[b"a" * 2000])]))
    one = tfs.ClassificationRequest(input=part).SerializeToString()
    assert len(read_input(64 * one).input.example_list.examples) == 64
    with pytest.raises(InvalidArgument, match="more than 64 fields"):
        read_input(65 * one)
    parts = 65 * part.SerializeToString()
    with pytest.raises(InvalidArgument, match="more than 64 fields"):
        read_input(b"\x12" + varint(len(parts)) + parts)
