"""Bodies of answers: JSON that a parser reads, and binary data where the JSON says they are."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.api.signature import Reply, Signature
from gateway.errors import InvalidArgument, ResourceExhausted
from gateway.rest.infer_reply import ReplyBody, ReplyForm, check_form, write_reply
from gateway.rest.prediction import write_predictions
from gateway.serving.call import Call
from gateway.tensor import Array, Buffer, Datatype, TensorSpec
from tests.api.requests import signature

Y = TensorSpec("y", Datatype.FP32, (-1, 2))
LABEL = TensorSpec("label", Datatype.BYTES, (-1, 1))
HALF = TensorSpec("half", Datatype.FP16, (-1, 1))
ROWS = np.array([[1.5, 2], [3, 4]], np.float32)
LABELS = np.array([["a"], ["grün"]], np.object_)


class _Receiver:
    def submitted(self, call: Call) -> None: ...
    def withdrawn(self, call: Call) -> None: ...
    def answered(self, call: Call) -> None: ...


def answered(outputs: Sequence[Buffer], rows: int = 2, request_id: str = "r") -> Call:
    call = Call("m", "7", request_id, _Receiver())
    call.outputs, call.rows = outputs, rows
    return call


def parsed(body: ReplyBody) -> tuple[dict[str, Any], list[bytes]]:
    """The JSON, and the binary data by the sizes that it gives."""
    whole = b"".join(body.pieces)
    text, rest = (whole, b"") if body.json_size < 0 else (whole[: body.json_size], whole[body.json_size :])
    told = json.loads(text)
    data = []
    for output in told["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            data.append(rest[:size])
            rest = rest[size:]
    assert not rest
    return told, data


CONTRACT = signature([], [Y, LABEL], max_batch_size=8)


@pytest.mark.parametrize("raw", [False, True])
def test_one_output_in_both_forms(raw: bool) -> None:
    contract = signature([], [Y], max_batch_size=8)
    call = answered([ROWS.tobytes() if raw else ROWS])
    head = {"model_name": "m", "model_version": "7", "id": "r"}
    for _ in range(2):  # the second is made of what was kept
        told, data = parsed(write_reply(call, contract, contract.raw_reply, ReplyForm(True), max_bytes=999))
        output = {"name": "y", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
        assert (told, data) == ({**head, "outputs": [output]}, [ROWS.tobytes()])
        told, data = parsed(write_reply(call, contract, contract.raw_reply, ReplyForm(), max_bytes=999))
        output = {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1.5, 2, 3, 4]}
        assert (told, data) == ({**head, "outputs": [output]}, [])


@given(st.permutations([0, 1]), st.lists(st.booleans(), min_size=2, max_size=2), st.text(max_size=3))
@example([1, 0], [True, False], "")
@example([0, 1], [False, True], '"')
def test_outputs_in_any_order_and_form(wanted: list[int], binary: list[bool], request_id: str) -> None:
    reply = CONTRACT.reply(tuple(wanted), (0, 0), typed=False)
    arrays: list[Array] = [(ROWS, LABELS)[place] for place in wanted]
    form = ReplyForm(False, tuple(binary))
    told, data = parsed(write_reply(answered(arrays, 2, request_id), CONTRACT, reply, form, max_bytes=999))
    assert told.get("id", "") == request_id
    assert [output["name"] for output in told["outputs"]] == [("y", "label")[place] for place in wanted]
    texts = b"\x01\0\0\0a\x05\0\0\0gr\xc3\xbcn"
    for output, place, is_binary in zip(told["outputs"], wanted, binary, strict=True):
        assert output["shape"] == [2, (2, 1)[place]]
        if is_binary:
            assert data.pop(0) == (ROWS.tobytes(), texts)[place]
        else:
            assert output["data"] == ([1.5, 2, 3, 4], ["a", "grün"])[place]


def test_classes_in_both_forms() -> None:
    contract = signature([], [Y], max_batch_size=8)
    reply = contract.reply((0,), (1,), typed=False)
    told, _ = parsed(write_reply(answered([ROWS]), contract, reply, ReplyForm(), max_bytes=999))
    assert told["outputs"] == [
        {"name": "y", "datatype": "BYTES", "shape": [2, 1], "data": ["2.000000:1", "4.000000:1"]}
    ]
    told, data = parsed(write_reply(answered([ROWS]), contract, reply, ReplyForm(True), max_bytes=999))
    assert data == [b"\n\0\0\x002.000000:1\n\0\0\x004.000000:1"]


def test_what_is_larger_than_an_answer_may_be_is_refused() -> None:
    with pytest.raises(ResourceExhausted, match="the limit is 50"):
        write_reply(answered([ROWS, LABELS]), CONTRACT, CONTRACT.raw_reply, ReplyForm(), max_bytes=50)


def test_a_form_that_is_none_is_refused_before_the_run() -> None:
    contract = signature([], [Y, HALF])
    check_form(ReplyForm(True), contract.raw_reply)
    check_form(ReplyForm(False, (False, True)), contract.raw_reply)
    with pytest.raises(InvalidArgument, match="output 'half': FP16 has no form in JSON"):
        check_form(ReplyForm(), contract.raw_reply)


def predicted(contract: Signature, reply: Reply, outputs: Sequence[Buffer]) -> Any:
    return json.loads(b"".join(write_predictions(answered(outputs), reply, max_bytes=999).pieces))["predictions"]


def test_predictions_are_rows() -> None:
    one = signature([], [Y], max_batch_size=8)
    assert predicted(one, one.raw_reply, [ROWS.tobytes()]) == [[1.5, 2], [3, 4]]
    assert predicted(CONTRACT, CONTRACT.raw_reply, [ROWS, LABELS]) == [
        {"y": [1.5, 2], "label": ["a"]},
        {"y": [3, 4], "label": ["grün"]},
    ]
    assert predicted(CONTRACT, CONTRACT.raw_reply, [ROWS, LABELS[:1]]) == {
        "y": [[1.5, 2], [3, 4]],
        "label": [["a"]],
    }
