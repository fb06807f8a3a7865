"""Requests and answers as values."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.client.answer import Answer, JoinedAnswers
from gateway.client.client_settings import ClientSettings
from gateway.client.feedback_items import feedback_items
from gateway.client.inference_call import InferenceCall, answer_of
from gateway.client.rest_message import infer_body, infer_path, rest_answer
from gateway.pb import inference_pb2 as pb


@given(st.integers(0, 20), st.integers(1, 25))
@example(0, 1)
@example(4, 4)
def test_parts_hold_every_row_once_in_order(rows: int, rows_per_call: int) -> None:
    call = InferenceCall("m", {"x": np.arange(rows * 2).reshape(rows, 2), "y": [float(row) for row in range(rows)]})
    parts = list(call.in_parts(rows_per_call))
    messages = [part.message() for part in parts]
    assert all(message.inputs[0].shape[0] <= rows_per_call for message in messages)
    sent = b"".join(message.raw_input_contents[0] for message in messages)
    assert sent == np.arange(rows * 2).tobytes()
    assert {message.inputs[1].datatype for message in messages} <= {"FP32"}


def test_parts_have_numbered_ids() -> None:
    call = InferenceCall("m", {"x": np.zeros((3, 1))}, request_id="r")
    assert [part.request_id for part in call.in_parts(2)] == ["r-0", "r-1"]


@pytest.mark.parametrize("inputs", [{}, {"x": 1.0}, {"x": np.zeros((2, 1)), "y": np.zeros((3, 1))}])
def test_inputs_without_common_rows_are_refused(inputs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="first axis"):
        list(InferenceCall("m", inputs).in_parts(1))  # type: ignore[arg-type]


def test_parameters_keep_their_types() -> None:
    message = InferenceCall("m", {}, parameters={"a": True, "b": 2, "c": 0.5, "d": "e"}).message()
    assert [message.parameters[name].WhichOneof("parameter_choice") for name in "abcd"] == [
        "bool_param",
        "int64_param",
        "double_param",
        "string_param",
    ]
    with pytest.raises(TypeError, match="'p'"):
        InferenceCall("m", {}, parameters={"p": []}).message()  # type: ignore[dict-item]


def test_trailers_tell_of_the_decision() -> None:
    response = pb.ModelInferResponse(model_name="m", model_version="1", id="r")
    trailers = (("x-gateway-arm", "canary"), ("x-gateway-revision", "7"), ("x-gateway-version", "2"), ("other", "x"))
    answer = answer_of(response, trailers)
    assert (answer.version, answer.arm, answer.revision, answer.request_id) == ("2", "canary", 7, "r")


def test_an_unknown_output_names_those_there_are() -> None:
    answer = Answer({"label": np.zeros(1)}, "m", "1", "r")
    with pytest.raises(KeyError, match="label"):
        answer["score"]
    assert JoinedAnswers(()).outputs == {}


def test_an_answer_yields_the_names_of_its_outputs() -> None:
    answer = Answer({"label": np.zeros(1), "score": np.ones(1)}, "m", "1", "r")
    assert list(answer) == list(JoinedAnswers((answer, answer))) == ["label", "score"]
    assert "score" in answer
    assert list(JoinedAnswers(())) == []


def test_the_key_stands_where_routes_look() -> None:
    settings = ClientSettings("localhost:1", token="t")
    assert settings.headers({"key": "u", "metadata": {"X-Plan": "pro"}}) == (
        ("x-plan", "pro"),
        ("x-user-id", "u"),
        ("authorization", "Bearer t"),
    )


def test_a_rest_body_holds_the_json_and_then_the_tensors() -> None:
    call = InferenceCall("a b/c", {"x": np.ones((1, 2), np.float32)}, version="2", outputs=("y",), request_id="r")
    body, json_bytes = infer_body(call)
    assert body[json_bytes:] == np.ones(2, np.float32).tobytes()
    assert infer_path(call) == "/v2/models/a%20b%2Fc/versions/2/infer"


def test_a_rest_answer_is_read_with_its_headers() -> None:
    head = (
        b'{"model_name": "m", "model_version": "1", "id": "r", "outputs": [{"name": "y", "datatype": "INT32", '
        b'"shape": [2], "parameters": {"binary_data_size": 8}}]}'
    )
    headers = {"inference-header-content-length": str(len(head)), "x-gateway-arm": "a", "x-gateway-token": "t"}
    answer = rest_answer(headers, head + np.array([3, 4], np.int32).tobytes())
    assert answer["y"].tolist() == [3, 4]
    assert (answer.arm, answer.token) == ("a", "t")


def test_feedback_has_an_item_for_each_row() -> None:
    answer = Answer({}, "m", "1", "r", token="t")
    items = feedback_items(answer, label=[3, "x"], reward=[1.0, 0.0], row=4, time=None, source="s")
    assert [(item.row_index, item.WhichOneof("label"), item.reward) for item in items] == [
        (4, "number", 1.0),
        (5, "text", 0.0),
    ]
    assert feedback_items(answer, label=np.array([[1], [2]]), reward=None, row=0, time=None, source="")[1].number == 2


@pytest.mark.parametrize(("label", "reward"), [(None, None), ([], []), ([1, 2], [1.0])])
def test_feedback_without_a_meaning_is_refused(label: list[float] | None, reward: list[float] | None) -> None:
    with pytest.raises(ValueError, match="label"):
        feedback_items(Answer({}, "m", "1", "r"), label=label, reward=reward, row=0, time=None, source="")
