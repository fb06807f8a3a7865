"""Bodies of inference requests: what they say is what a gRPC message with the same content says, and is kept."""

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.template import decode_query
from gateway.errors import GatewayError, InvalidArgument, ResourceExhausted, Unimplemented
from gateway.rest.infer_body import InferBodies, InferBody
from gateway.rest.infer_reply import ReplyForm
from gateway.rest.json_tensor import MAX_TEXTS
from gateway.rest.json_text import MAX_JSON_BYTES, MAX_LISTS
from gateway.tensor import Datatype
from tests.api.requests import one, rows_of_four

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def in_json(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": ROWS.tolist()}], **more}


def in_binary(**more: Any) -> tuple[bytes, int]:
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": ROWS.nbytes}}
    head = json.dumps({**more, "inputs": [tensor]}).encode()
    return head + ROWS.tobytes(), len(head)


def read(given: dict[str, Any] | bytes, json_size: int = -1, bodies: InferBodies | None = None) -> InferBody:
    body = given if isinstance(given, bytes) else json.dumps(given).encode()
    return (bodies or InferBodies()).read("m", "", body, json_size)


def test_json_and_binary_say_the_same() -> None:
    signature = rows_of_four()
    for written in (read(in_json(id="r")), read(*in_binary(id="r"))):
        assert written.request_id == "r"
        inputs, shapes, rows, reply = decode_query(written.query, written.raw, signature)
        assert [bytes(value) for value in inputs if isinstance(value, bytes | memoryview)] == [ROWS.tobytes()]
        assert (list(shapes), rows, reply) == ([(2, 4)], 2, signature.raw_reply)


@pytest.mark.parametrize("binary", [False, True])
def test_what_was_good_is_kept_and_read_the_same(binary: bool) -> None:
    bodies, signature = InferBodies(), rows_of_four()
    parameters = {"priority": 2, "group": "a"}

    def again(request_id: str) -> InferBody:
        if binary:
            return read(*in_binary(id=request_id, parameters=parameters), bodies=bodies)
        return read(in_json(id=request_id, parameters=parameters), bodies=bodies)

    first = again("r1")
    decoded = decode_query(first.query, first.raw, signature)
    bodies.keep(first)
    second = again("r2")
    assert second.query.fitted is not None, "it was not kept"
    assert second.request_id == "r2"
    assert second.query.parameters == first.query.parameters == parameters
    for _ in range(2):
        _, shapes, rows, reply = decode_query(second.query, second.raw, signature)
        assert (list(shapes), rows, reply) == (list(decoded[1]), *decoded[2:])
    assert [bytes(data) for data in second.raw] == [ROWS.tobytes()]


def test_binary_data_are_slices_of_the_body() -> None:
    body, size = in_binary()
    (data,) = read(body, size).raw
    assert isinstance(data, memoryview)
    assert data.obj is body


@pytest.mark.parametrize(
    "text",
    [
        b'{"id":"a","inputs":[%b],"id":"b"}',
        b'{"inputs":[%b],"id":"b"}',
        b'{"id":"\\u0061","inputs":[%b]}',
    ],
)
def test_an_id_that_is_not_simply_first_is_not_guessed(text: bytes) -> None:
    text = text % b'{"name":"x","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":1}}'
    bodies = InferBodies()
    for _ in range(2):
        written = bodies.read("m", "", text + b"\n", len(text))
        assert written.request_id == json.loads(text)["id"]
        bodies.keep(written)


def test_a_kept_request_of_another_length_is_read_whole() -> None:
    bodies, (body, size) = InferBodies(), in_binary()
    first = read(body, size, bodies)
    decode_query(first.query, first.raw, rows_of_four())
    bodies.keep(first)
    for wrong in (body + b"1", body[:-1]):
        with pytest.raises(InvalidArgument, match=r"additional input data|unable to find data"):
            read(wrong, size, bodies)


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ({}, ReplyForm()),
        ({"parameters": {"binary_data_output": True}}, ReplyForm(True)),
        ({"outputs": [{"name": "y"}]}, ReplyForm(False, (False,))),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}, ReplyForm(False, (True,))),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}],
            },
            ReplyForm(True, (False, True)),
        ),
    ],
)
def test_the_form_of_the_answer(given: dict[str, Any], form: ReplyForm) -> None:
    assert read(in_json(**given)).form == form


TENSOR = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b"{", "failed to parse the request JSON"),
        (b"[]", "not an object"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', "failed to parse"),
        ({}, "inputs: a list of objects"),
        ({"inputs": [1]}, "inputs: a list of objects"),
        ({"inputs": [TENSOR] * 257}, "257 inputs, the limit is 256"),
        ({"inputs": [{**TENSOR, "name": 1}]}, "has no name"),
        ({"inputs": [{**TENSOR, "shape": [1.0]}]}, "shape is a list of whole numbers"),
        ({"inputs": [{**TENSOR, "shape": [2**70]}]}, "shape is a list of whole numbers"),
        ({"inputs": [{**TENSOR, "shape": [2**63 - 1] * 100_000}]}, "100000 dimensions, the limit is 16"),
        ({"inputs": [{**TENSOR, "shape": [2**63 - 1] * 16}]}, "unexpected number of elements"),
        ({"inputs": [{**TENSOR, "parameters": {str(one): 1 for one in range(65)}}]}, "65 parameters, the limit is 64"),
        ({"inputs": [{**TENSOR, "datatype": "FP31"}]}, "datatype 'FP31' is not one of BOOL"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, "unable to find data"),
        ({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 4}}]}, "both data and a binary_data_size"),
        ({"inputs": [{**TENSOR, "parameters": {"binary_data_size": "4"}}]}, "number of bytes is expected"),
        ({"inputs": [TENSOR], "id": 1}, "id is a text"),
        ({"inputs": [TENSOR], "id": "a" * 257}, "the limit is 256"),
        ({"inputs": [TENSOR], "parameters": {"a": [1]}}, "neither a text, a number"),
        ({"inputs": [TENSOR], "parameters": {"headers": "a"}}, "reserved"),
        ({"inputs": [TENSOR], "parameters": {"timeout": -1}}, "cannot be negative"),
        ({"inputs": [TENSOR], "parameters": {"binary_data_output": 1}}, "is true or false"),
        ({"inputs": [TENSOR], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "is true or false"),
        ({"inputs": [TENSOR], "outputs": [{}]}, "an output has no name"),
    ],
)
def test_what_is_no_request_is_refused(given: dict[str, Any] | bytes, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        read(given)


def test_shared_memory_is_refused_by_name() -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"shared_memory_region": "r"}}
    read_so_far = read({"inputs": [tensor]})
    with pytest.raises(Unimplemented, match="shared memory"):
        decode_query(read_so_far.query, read_so_far.raw, one(Datatype.FP32))


def test_sizes_are_bounded() -> None:
    with pytest.raises(InvalidArgument, match="Inference-Header-Content-Length is 9"):
        read(b"{}", 9)
    with pytest.raises(ResourceExhausted, match=f"at most {MAX_JSON_BYTES} are read"):
        read(b" " * (MAX_JSON_BYTES + 1))


@given(st.binary(max_size=200), st.integers(-1, 200))
def test_any_bytes_are_read_or_refused(body: bytes, json_size: int) -> None:
    with suppress(GatewayError):
        InferBodies().read("m", "", body, json_size)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["name", "shape", "datatype", "data", "parameters"])


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(st.dictionaries(FIELDS, JSON | st.sampled_from(["x", "FP32", [1], [1.5]]))) | JSON},
        optional={"id": JSON, "parameters": JSON, "outputs": JSON},
    )
)
def test_any_json_is_read_or_refused(given: dict[str, Any]) -> None:
    text = json.dumps(given).encode()
    with suppress(GatewayError):
        InferBodies().read("m", "", text, -1)


@pytest.mark.parametrize("nested", ["[1],", "[[[[1]]]],", "{},", '"[",'])
def test_json_that_costs_too_much_is_not_parsed(nested: str) -> None:
    most = MAX_LISTS // max(nested.count("["), nested.count("{")) - 8
    shape = [most] if "1" in nested else [1]
    few, many = (b'{"inputs":[{"name":"x","datatype":"FP32","shape":%s,"data":[%s1]}]}' % (
        str(shape).encode(), (nested * count).encode()) for count in (most, 2 * most))  # fmt: skip
    with pytest.raises(InvalidArgument):  # it is parsed, and found to be no tensor
        read(few)
    with pytest.raises(ResourceExhausted, match=f"at most {MAX_LISTS} are read: send flat data"):
        read(many)


def test_flat_data_may_be_as_long_as_json_is_read() -> None:
    count = MAX_JSON_BYTES // 2 - 100
    body = b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[%d],"data":[%s1]}]}' % (count, b"1," * (count - 1))
    assert read(body).raw == [b"\1" * count]
    texts = b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[%d],"data":[%s""]}]}'
    with pytest.raises(ResourceExhausted, match=f"at most {MAX_TEXTS} are read"):
        read(texts % (MAX_TEXTS + 1, b'"",' * MAX_TEXTS))
