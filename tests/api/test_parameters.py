"""Parameters of a request: caps, types, signs, reserved names."""

from typing import Any

import pytest

from gateway.api.parameters import KNOWN, check_tensor, read_request, timeout_ns
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb


def with_parameter(name: str, **value: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(parameters={name: pb.InferParameter(**value)})


def refused(request: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_request(request)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400


def test_values_of_every_type_are_read() -> None:
    request = pb.ModelInferRequest()
    request.parameters["b"].bool_param = True
    request.parameters["i"].int64_param = -5
    request.parameters["s"].string_param = "text"
    request.parameters["d"].double_param = 0.5
    request.parameters["u"].uint64_param = 2**64 - 1
    assert read_request(request) == {"b": True, "i": -5, "s": "text", "d": 0.5, "u": 2**64 - 1}
    assert read_request(pb.ModelInferRequest()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sequence_id", {"bool_param": True}),
        ("sequence_start", {"int64_param": 1}),
        ("sequence_end", {"string_param": "true"}),
        ("priority", {"string_param": "1"}),
        ("priority", {"double_param": 1.0}),
        ("timeout", {"bool_param": True}),
        ("timeout", {"string_param": "1"}),
    ],
)
def test_known_parameters_have_their_type(name: str, value: dict[str, object]) -> None:
    refused(with_parameter(name, **value), f"invalid value type for parameter {name!r}")


def test_known_parameters_are_taken_as_clients_send_them() -> None:
    request = pb.ModelInferRequest()
    request.parameters["sequence_id"].string_param = "s"
    request.parameters["sequence_start"].bool_param = True
    request.parameters["priority"].uint64_param = 1
    request.parameters["timeout"].int64_param = 250
    assert timeout_ns(read_request(request)) == 250_000
    assert timeout_ns(read_request(pb.ModelInferRequest())) == 0


@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_negative_values_are_refused(name: str) -> None:
    refused(with_parameter(name, int64_param=-1), f"parameter {name!r} is -1: it cannot be negative")


@pytest.mark.parametrize("name", ["triton_anything", "triton_final_response", "headers", "binary_data_output"])
def test_reserved_names_are_refused(name: str) -> None:
    refused(with_parameter(name, bool_param=True), "is reserved")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_final_response_may_be_asked_for(wanted: bool) -> None:
    request = with_parameter("triton_enable_empty_final_response", bool_param=wanted)
    assert read_request(request) == {"triton_enable_empty_final_response": wanted}


def test_a_known_parameter_has_one_of_the_kinds_that_there_are() -> None:
    kinds = set(pb.InferParameter.DESCRIPTOR.fields_by_name)
    for name, expected in KNOWN.items():
        assert expected.kinds, name
        assert set(expected.kinds) <= kinds, name
        for kind in kinds - set(expected.kinds):
            value = "1" if kind == "string_param" else 1
            refused(with_parameter(name, **{kind: value}), f"invalid value type for parameter {name!r}")


def test_a_parameter_without_a_value_is_refused() -> None:
    refused(with_parameter("empty"), "parameter 'empty' of the request has no value")


def test_number_and_size_of_parameters_are_bounded() -> None:
    request = pb.ModelInferRequest()
    for index in range(64):
        request.parameters[str(index)].int64_param = index
    assert len(read_request(request)) == 64
    request.parameters["64"].int64_param = 64
    refused(request, "has 65 parameters, the limit is 64")
    assert read_request(with_parameter("s", string_param="x" * 4095))
    refused(with_parameter("s", string_param="x" * 4096), "takes 4097 bytes, the limit is 4096")
    refused(with_parameter("s", string_param="x" * 10**6), "the limit is 4096")
    refused(with_parameter("n" * 5000, bool_param=True), "the limit is 4096")
    tensor = pb.ModelInferRequest.InferInputTensor(name="x")
    for index in range(65):
        tensor.parameters[str(index)].int64_param = index
    with pytest.raises(InvalidArgument, match="input 'x' has 65 parameters, the limit is 64"):
        check_tensor(tensor.name, tensor.parameters, "input")
