"""Requests against a contract: what fits is taken as it is, what does not is refused with a text that says why."""

import struct

import numpy as np
import pytest

from gateway.api.decode import Decoded, decode, read_header
from gateway.api.signature import Signature
from gateway.errors import GatewayError, InvalidArgument, Unimplemented
from gateway.pb import inference_pb2 as pb
from gateway.tensor import Datatype, TensorSpec
from tests.api.requests import one, raw_request, rows_of_four, signature, typed_request

FP32 = Datatype.FP32


def decoded(request: pb.ModelInferRequest, contract: Signature) -> Decoded:
    return decode(request, request.raw_input_contents, contract)


def refused(request: pb.ModelInferRequest, contract: Signature, text: str) -> None:
    for _ in range(2):  # what was remembered from the first time must not let it through the second time
        with pytest.raises(InvalidArgument) as caught:
            decoded(request, contract)
        assert text in str(caught.value)


def test_raw_numbers_stay_the_bytes_that_were_sent() -> None:
    data = np.arange(8, dtype=np.float32).tobytes()
    inputs, shapes, rows, reply = decoded(raw_request(shape=(2, 4), data=data), rows_of_four())
    assert inputs == [data]
    assert isinstance(inputs[0], bytes)
    assert shapes == [(2, 4)]
    assert rows == 2
    assert reply.wanted is None
    assert not reply.typed


def test_inputs_follow_the_contract_whatever_their_order_in_the_request() -> None:
    contract = signature([TensorSpec("a", FP32, (2,)), TensorSpec("b", Datatype.INT64, (1,))])
    request = pb.ModelInferRequest(raw_input_contents=[bytes(8), b"\1" * 8])
    request.inputs.add(name="b", datatype="INT64", shape=[1])
    request.inputs.add(name="a", datatype="FP32", shape=[2])
    inputs, shapes, rows, _ = decoded(request, contract)
    assert inputs == [b"\1" * 8, bytes(8)]
    assert shapes == [(2,), (1,)]
    assert rows == 1


def test_an_optional_input_may_be_left_out() -> None:
    contract = signature([TensorSpec("x", FP32, (-1, 4)), TensorSpec("o", FP32, (1,), optional=True)])
    inputs, shapes, _, _ = decoded(raw_request(), contract)
    assert inputs == [bytes(16), None]
    assert shapes == [(1, 4), None]


def test_a_model_without_inputs_takes_an_empty_request() -> None:
    inputs, shapes, rows, _ = decoded(pb.ModelInferRequest(), signature([]))
    assert (inputs, shapes, rows) == ([], [], 1)


# ---- table A, rows 1 to 4: which inputs ----


def test_missing_inputs_are_named() -> None:
    contract = signature([TensorSpec("x", FP32, (-1, 4)), TensorSpec("z", FP32, (1,))])
    refused(raw_request(), contract, "expected 2 inputs but got 1 inputs for model 'm'")
    refused(raw_request(), contract, "missing required input(s) ['z']")
    refused(pb.ModelInferRequest(), contract, "['x', 'z']")
    refused(pb.ModelInferRequest(), rows_of_four(), "expected 1 inputs but got 0")


def test_unknown_and_repeated_inputs_are_refused() -> None:
    refused(raw_request(name="z"), rows_of_four(), "unexpected inference input 'z' for model 'm'; its inputs are x")
    refused(raw_request(name="z"), signature([]), "unexpected inference input 'z' for model 'm'; it takes no inputs")
    request = raw_request()
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(bytes(16))
    refused(request, rows_of_four(), "input 'x' already exists in request")


@pytest.mark.parametrize("datatype", ["", "fp32", "FP33", "BF16", "INT32", "FP32\0", "BYTES"])
def test_another_datatype_is_refused(datatype: str) -> None:
    text = f"data-type for input 'x' is {datatype!a}, but model 'm' expects 'FP32'"
    refused(raw_request(datatype=datatype), rows_of_four(), text)


# ---- rows 6 to 13: shapes ----


@pytest.mark.parametrize("shape", [(), (4,), (1, 5), (1, 4, 1), (1, 0)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    refused(raw_request(shape=shape), rows_of_four(), "unexpected shape for input 'x' for model 'm'. Expected [-1,4]")


@pytest.mark.parametrize("shape", [(-1, 4), (1, -2), (-(2**63), 4), (-1, -4)])
def test_negative_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    refused(raw_request(shape=shape), rows_of_four(), "All input dimensions should be specified for input 'x'")


def test_a_huge_shape_without_data_allocates_nothing() -> None:
    refused(raw_request(shape=(2**36,), data=b""), one(FP32), f"Expected {4 * 2**36}, got 0")
    refused(raw_request(shape=(2**40,), data=b""), one(FP32), "is larger than any message")
    refused(raw_request(shape=(2**62, 0), data=b""), one(FP32, (-1, -1)), "is larger than any message")


@pytest.mark.parametrize("rank", [17, 10_000])
def test_rank_has_a_limit(rank: int) -> None:
    refused(raw_request(shape=(1,) * rank, data=bytes(4)), rows_of_four(), f"has {rank} dimensions, the limit is 16")


def test_zero_elements_are_fine_where_the_contract_allows_them() -> None:
    inputs, shapes, rows, _ = decoded(raw_request(shape=(0, 4), data=b""), rows_of_four())
    assert (inputs, shapes, rows) == ([b""], [(0, 4)], 0)
    inputs, shapes, rows, _ = decoded(typed_request("FP32", (0, 4)), rows_of_four())
    array = inputs[0]
    assert isinstance(array, np.ndarray)
    assert array.shape == (0, 4)


def test_batches_are_bounded_and_agree() -> None:
    refused(raw_request(shape=(9, 4), data=bytes(144)), rows_of_four(), "batch-size must be <= 8 for 'm', got 9")
    specs = [TensorSpec("x", FP32, (-1, 4)), TensorSpec("z", FP32, (-1, 1))]
    request = raw_request(shape=(2, 4), data=bytes(32))
    request.inputs.add(name="z", datatype="FP32", shape=[3, 1])
    request.raw_input_contents.append(bytes(12))
    refused(request, signature(specs, max_batch_size=8), "input 'z' batch size does not match other inputs for 'm'")
    assert decoded(request, signature(specs))[2] == 1  # the first dimension is no batch where nothing batches


# ---- rows 14 to 20: raw and typed data ----


def test_raw_entries_and_inputs_go_together() -> None:
    request = raw_request()
    request.inputs.add(name="z", datatype="FP32", shape=[1])
    contract = signature([TensorSpec("x", FP32, (-1, 4)), TensorSpec("z", FP32, (1,))])
    refused(request, contract, "unable to find data for input tensor 'z' for model 'm'")
    request = raw_request()
    request.raw_input_contents.append(b"")
    refused(request, rows_of_four(), "raw_input_contents has 2 entries for 1 inputs")
    request = raw_request()
    del request.raw_input_contents[:]
    refused(request, rows_of_four(), "unable to find data for input tensor 'x': 4 elements are expected")


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_raw_data_have_exactly_the_size_of_the_shape(size: int) -> None:
    text = f"input byte size mismatch for input 'x' for model 'm'. Expected 16, got {size}"
    refused(raw_request(data=bytes(size)), rows_of_four(), text)


def test_raw_and_typed_data_do_not_mix() -> None:
    request = raw_request()
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    refused(request, rows_of_four(), "contents field must not be specified when using raw_input_contents for 'x'")
    request = raw_request()
    request.inputs[0].contents.SetInParent()
    refused(request, rows_of_four(), "contents field must not be specified")


def test_typed_contents_are_one_field_of_the_right_kind_and_count() -> None:
    contract = rows_of_four()
    two = typed_request("FP32", (1, 4), fp32_contents=[1, 2, 3, 4], int_contents=[1])
    refused(two, contract, "several fields (int_contents, fp32_contents), one is allowed")
    refused(typed_request("FP32", (1, 4), fp64_contents=[1, 2, 3, 4]), contract, "sent in fp32_contents, got fp64")
    refused(typed_request("FP32", (1, 4), fp32_contents=[1, 2, 3]), contract, "expected 4, got 3")
    refused(typed_request("FP32", (1, 4), fp32_contents=[1] * 5), contract, "expected 4, got 5")


TYPED = [
    ("BOOL", "bool_contents", [True, False]),
    ("INT8", "int_contents", [-128, 127]),
    ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
    ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
    ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
    ("UINT8", "uint_contents", [0, 255]),
    ("UINT16", "uint_contents", [0, 2**16 - 1]),
    ("UINT32", "uint_contents", [0, 2**32 - 1]),
    ("UINT64", "uint64_contents", [0, 2**64 - 1]),
    ("FP32", "fp32_contents", [0.5, float("-inf")]),
    ("FP64", "fp64_contents", [0.1, 1e300]),
    ("BYTES", "bytes_contents", [b"", "ä\0".encode()]),
]


@pytest.mark.parametrize(("name", "field", "values"), TYPED)
def test_typed_contents_become_arrays(name: str, field: str, values: list[object]) -> None:
    datatype = Datatype[name]
    inputs, shapes, _, reply = decoded(typed_request(name, (2, 1), **{field: values}), one(datatype, (-1, 1)))
    array = inputs[0]
    assert isinstance(array, np.ndarray)
    assert array.dtype == datatype.dtype
    assert array.shape == (2, 1)
    assert array.reshape(-1).tolist() == values
    assert shapes == [(2, 1)]
    assert reply.typed


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("INT8", "int_contents", 128), ("INT16", "int_contents", -40_000), ("UINT8", "uint_contents", 256)],
)
def test_typed_values_fit_their_datatype(name: str, field: str, value: int) -> None:
    refused(typed_request(name, (1,), **{field: [value]}), one(Datatype[name]), f"does not fit {name}")


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_half_floats_exist_only_raw(name: str) -> None:
    contract = one(Datatype[name])
    refused(typed_request(name, (1,), fp32_contents=[1.0]), contract, f"datatype {name} has no typed contents")
    assert decoded(raw_request(datatype=name, shape=(2,), data=b"\0\1\2\3"), contract)[0] == [b"\0\1\2\3"]


# ---- rows 23 to 28: BYTES and BOOL ----


def test_bytes_are_split_into_elements() -> None:
    data = b"".join(struct.pack("<I", len(text)) + text for text in (b"", b"a\0b", "ü".encode()))
    inputs, _, _, _ = decoded(raw_request(datatype="BYTES", shape=(3,), data=data), one(Datatype.BYTES))
    array = inputs[0]
    assert isinstance(array, np.ndarray)
    assert array.dtype == object
    assert array.tolist() == [b"", b"a\0b", "ü".encode()]


@pytest.mark.parametrize(
    ("count", "data", "text"),
    [
        (1, b"\xff\xff\xff\xffab", "expecting string of length 4294967295 but only 2 bytes available"),
        (1, b"\1\0\0\0a\0", "expected 1 strings for inference input 'x', got 1 bytes more"),
        (2, b"\4\0\0\0abcd\0\0", "expecting 4 bytes but only 2 bytes available"),
        (2, b"\4\0\0\0abcd", "expected 2 strings for inference input 'x', got 1"),
        (3, b"\0\0\0\0", "expected 3 strings"),
        (1, b"", "expected 1 strings"),
        (0, b"\0\0\0\0", "expected 0 strings"),
        (1, b"\2\0\0\0\xff\xfe", "element 0 is not UTF-8"),
    ],
)
def test_broken_bytes_are_refused(count: int, data: bytes, text: str) -> None:
    refused(raw_request(datatype="BYTES", shape=(count,), data=data), one(Datatype.BYTES), text)


def test_the_number_of_bytes_elements_has_a_limit() -> None:
    request = raw_request(datatype="BYTES", shape=(10**7,), data=bytes(4 * 10**7))
    refused(request, one(Datatype.BYTES), "has 10000000 BYTES elements, the limit is 1048576")


@pytest.mark.parametrize("value", [2, 255])
def test_a_bool_is_zero_or_one(value: int) -> None:
    contract = one(Datatype.BOOL)
    assert decoded(raw_request(datatype="BOOL", shape=(3,), data=b"\0\1\0"), contract)[0] == [b"\0\1\0"]
    request = raw_request(datatype="BOOL", shape=(3,), data=bytes((0, value, 1)))
    refused(request, contract, f"has a byte of value {value}: 0 or 1 is allowed")
    refused(raw_request(datatype="BOOL", shape=(3,), data=b"\0"), contract, "Expected 3, got 1")


# ---- rows 31 to 37: outputs, parameters, caps ----


def two_outputs() -> Signature:
    return signature(
        [TensorSpec("x", FP32, (-1, 4))], [TensorSpec("y", FP32, (-1, 4)), TensorSpec("s", Datatype.BYTES, (-1,))]
    )


def asking(*names: str) -> pb.ModelInferRequest:
    request = raw_request()
    for name in names:
        request.outputs.add(name=name)
    return request


def test_outputs_are_asked_for_by_name() -> None:
    contract = two_outputs()
    assert decoded(asking("s"), contract)[3].wanted == (1,)
    assert decoded(asking("s", "y"), contract)[3].wanted == (1, 0)
    assert decoded(asking("y", "s"), contract)[3].wanted is None  # all in their order: as if nothing was asked
    assert decoded(asking(), contract)[3].wanted is None
    refused(asking("z"), contract, "unexpected inference output 'z' for model 'm'; its outputs are y, s")


def test_an_output_that_is_asked_for_twice_is_told_once() -> None:
    """Seen of Triton 2.51."""
    contract = two_outputs()
    assert decoded(asking("y", "y"), contract)[3].wanted == (0,)
    assert decoded(asking("s", "y", "s"), contract)[3].wanted == (1, 0)
    request = asking("y", "y")
    request.outputs[1].parameters["classification"].int64_param = 3
    refused(request, contract, "output 'y' already exists in request, in another form")


def test_classes_are_asked_for_by_output() -> None:
    contract = two_outputs()
    request = asking("y")
    request.outputs[0].parameters["classification"].int64_param = 3
    reply = decoded(request, contract)[3]
    assert reply.classes == (3,)
    for count in (0, -1, 1 << 32):
        request.outputs[0].parameters["classification"].int64_param = count
        refused(request, contract, f"'classification' of output 'y' is {count}: 1 to 2^32 - 1 is allowed")
    request.outputs[0].parameters["classification"].string_param = "3"
    refused(request, contract, "expected int64_param, got string_param")
    request = asking("s")
    request.outputs[0].parameters["classification"].uint64_param = 1
    refused(request, contract, "classification is not possible for output 's'")


def test_shared_memory_is_refused_as_not_implemented() -> None:
    request = raw_request()
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(Unimplemented, match="shared memory is not supported"):
        decoded(request, rows_of_four())
    request = asking("y")
    request.outputs[0].parameters["shared_memory_byte_size"].int64_param = 1
    with pytest.raises(Unimplemented):
        decoded(request, rows_of_four())


def test_tensors_have_a_limit() -> None:
    request = raw_request()
    for index in range(256):
        request.outputs.add(name=str(index))
    read_header(request, request.raw_input_contents)
    request.outputs.add(name="one more")
    with pytest.raises(InvalidArgument, match="asks for 257 outputs, the limit is 256"):
        read_header(request, request.raw_input_contents)
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b""] * 100_000)
    with pytest.raises(InvalidArgument, match="has 100000 inputs, the limit is 256"):
        read_header(request, request.raw_input_contents)


# ---- row 36 and table B: names, versions, ids ----


def test_every_refusal_is_bounded_and_printable() -> None:
    request = raw_request(name="\x1b[31m" + "n" * 10**6, datatype="\n" * 10**6)
    with pytest.raises(GatewayError) as caught:
        decoded(request, rows_of_four())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    request.inputs[0].name = "x"
    with pytest.raises(GatewayError) as caught:
        decoded(request, rows_of_four())
    assert len(str(caught.value)) < 600


def test_a_model_without_inputs_answers_raw() -> None:
    _, _, rows, reply = decoded(pb.ModelInferRequest(model_name="m"), signature((), max_batch_size=0))
    assert rows == 1
    assert not reply.typed
