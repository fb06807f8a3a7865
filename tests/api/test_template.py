"""Learned requests: what is parts is what protobuf and the checks would have said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.decode import decode, read_header
from gateway.api.template import FORGET_AFTER, MAX_MODELS, MAX_TEMPLATES, Query, Templates, decode_query
from gateway.api.wire import LARGE_BYTES, parse
from gateway.pb import inference_pb2 as pb
from gateway.tensor import Datatype, TensorSpec
from tests.api.requests import raw_request, rows_of_four, signature

CONTRACT = rows_of_four(1 << 20)


def request_of(rows: int = 1, *, request_id: str = "", version: str = "", seed: int = 0) -> pb.ModelInferRequest:
    data = np.random.default_rng(seed).random((rows, 4), np.float32)
    request = raw_request(shape=(rows, 4), data=data.tobytes())
    request.id, request.model_version = request_id, version
    return request


def learn(templates: Templates, message: bytes) -> None:
    request, raw, _ = parse(message)
    model, version, _ = read_header(request, raw)
    templates.learn(message, Query(model, version, {}, request))


@settings(max_examples=200, deadline=None)
@given(
    first=st.tuples(st.integers(0, 3), st.text(max_size=10), st.sampled_from(["", "1", "22"])),
    second=st.tuples(st.integers(0, 3), st.text(max_size=10), st.sampled_from(["", "1", "22"])),
    seed=st.integers(0, 1000),
)
def test_what_is_found_is_what_a_parse_would_give(
    first: tuple[int, str, str], second: tuple[int, str, str], seed: int
) -> None:
    templates = Templates()
    learn(templates, request_of(first[0], request_id="id", version=first[2]).SerializeToString())
    request = request_of(second[0], request_id=second[1], version=second[2], seed=seed)
    message = request.SerializeToString()
    parts = templates.find(message)
    alike = first[0] == second[0] and first[2] == second[2]
    assert (parts is not None) == (alike and second[1].isprintable())
    if parts is None:
        return
    query, request_id, raw = parts
    assert (query.model, query.version, request_id) == ("m", second[2], second[1])
    for _ in range(2):  # the second time from what was remembered
        inputs, shapes, rows, reply = decode_query(query, raw, CONTRACT)
        expected = decode(request, request.raw_input_contents, CONTRACT)
        assert (list(inputs), list(shapes), rows, reply) == (*map(list, expected[:2]), *expected[2:])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_is_never_overlooked(data: st.DataObject) -> None:
    templates = Templates()
    message = request_of(2, request_id="abc").SerializeToString()
    learn(templates, message)
    changed = bytearray(message)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(changed), len(changed), len(changed) - 1, len(changed) // 2]))
    mutant = bytes(changed[:cut]) + data.draw(st.sampled_from([b"", b"", b"a"]))
    parts = templates.find(mutant)
    if parts is None:
        return
    query, request_id, raw = parts
    parsed = pb.ModelInferRequest.FromString(mutant)
    assert parsed.id == request_id
    assert list(parsed.raw_input_contents) == list(raw)
    del parsed.raw_input_contents[:]
    parsed.ClearField("id")
    assert parsed == query.request


def test_several_inputs_in_any_order_are_learned() -> None:
    contract = signature(
        [
            TensorSpec("a", Datatype.FP32, (2,)),
            TensorSpec("b", Datatype.INT8, (-1,)),
            TensorSpec("c", Datatype.FP16, (1,)),
        ]
    )
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\1\2", bytes(8), b"\3\4"])
    request.inputs.add(name="c", datatype="FP16", shape=[1])
    request.inputs.add(name="a", datatype="FP32", shape=[2])
    request.inputs.add(name="b", datatype="INT8", shape=[2])
    templates = Templates()
    learn(templates, request.SerializeToString())
    request.raw_input_contents[0] = b"\7\7"
    parts = templates.find(request.SerializeToString())
    assert parts is not None
    for _ in range(2):
        assert decode_query(parts[0], parts[2], contract)[0] == [bytes(8), b"\3\4", b"\7\7"]


def test_large_requests_are_found_as_views() -> None:
    templates = Templates()
    message = request_of(LARGE_BYTES // 16).SerializeToString()
    learn(templates, message)
    parts = templates.find(message)
    assert parts is not None
    view = parts[2][0]
    assert isinstance(view, memoryview)
    assert view.obj is message
    assert view == request_of(LARGE_BYTES // 16).raw_input_contents[0]


def test_two_contracts_of_one_request_are_kept_apart() -> None:
    templates = Templates()
    message = request_of(1).SerializeToString()
    learn(templates, message)
    parts = templates.find(message)
    assert parts is not None
    query, _, raw = parts
    swapped = signature([TensorSpec("o", Datatype.FP32, (1,), optional=True), TensorSpec("x", Datatype.FP32, (1, 4))])
    for _ in range(2):
        assert list(decode_query(query, raw, CONTRACT)[0]) == list(raw)
        assert list(decode_query(query, raw, swapped)[0]) == [None, raw[0]]


def test_values_are_checked_each_time() -> None:
    contract = signature([TensorSpec("x", Datatype.BOOL, (2,))])
    templates = Templates()
    good = raw_request(datatype="BOOL", shape=(2,), data=b"\0\1").SerializeToString()
    learn(templates, good)
    parts = templates.find(good)
    assert parts is not None
    decode_query(parts[0], parts[2], contract)
    bad = templates.find(good[:-1] + b"\2")
    assert bad is not None
    with pytest.raises(Exception, match="0 or 1 is allowed"):
        decode_query(bad[0], bad[2], contract)


@pytest.mark.parametrize(
    "message",
    [
        pb.ModelInferRequest(model_name="m").SerializeToString(),  # nothing raw
        b"\x1a\x01i" + request_of().SerializeToString(),  # the id before the name
        request_of().SerializeToString() + b"\x1a\x01i",  # the id behind the data
        request_of().SerializeToString() + request_of().SerializeToString(),
        raw_request().SerializeToString() + b"\x08\x01",  # a field that is not length-delimited
    ],
)
def test_unusual_forms_are_not_learned(message: bytes) -> None:
    templates = Templates()
    learn(templates, message)
    assert templates.find(message) is None


def test_what_is_kept_is_bounded_and_renewed() -> None:
    templates = Templates()
    messages = [request_of(rows).SerializeToString() for rows in range(MAX_TEMPLATES + 1)]
    for message in messages:
        learn(templates, message)
    assert all(templates.find(message) for message in messages[:-1])
    assert templates.find(messages[-1]) is None
    for _ in range(FORGET_AFTER):
        learn(templates, messages[-1])
    assert templates.find(messages[-1]) is not None
    for index in range(MAX_MODELS + 1):
        request = request_of()
        request.model_name = f"m{index}"
        learn(templates, request.SerializeToString())
    assert len(templates._known) <= MAX_MODELS
