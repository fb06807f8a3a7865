"""Messages as JSON: everything that they say, and back."""

import pytest
from google.protobuf.message import Message

from gateway.errors import InvalidArgument, ResourceExhausted
from gateway.pb import control_pb2, inference_pb2
from gateway.rest.json_text import MAX_JSON_BYTES, read_object
from gateway.rest.message_json import MOST_ENTRIES, fill, plain


def test_numbers_are_numbers_and_every_field_is_there() -> None:
    statistics = inference_pb2.ModelStatistics(name="m", last_inference=1 << 60)
    told = plain(statistics)
    assert told["last_inference"] == 1 << 60
    assert told["batch_stats"] == []
    assert told["version"] == ""
    assert "inference_stats" not in told, "it is not there, which is not the same as zeros"


def test_enumerations_are_names_and_maps_are_objects() -> None:
    config = inference_pb2.ModelConfig(name="m")
    config.input.add(name="x", data_type=11, dims=[4])
    config.parameters["threads"].string_value = "2"
    told = plain(config)
    assert told["input"][0]["data_type"] == "TYPE_FP32"
    assert told["input"][0]["dims"] == [4]
    assert told["parameters"] == {"threads": {"string_value": "2"}}


def test_json_in_a_text_is_the_value_itself() -> None:
    document = {"model": "m", "spec": {"strategy": {"pin": {"arm": "a"}}}}
    request = control_pb2.ApplyRequest()
    fill(request, {"document": document, "expected_revision": 3, "change": {"reason": "why"}, "dry_run": True})
    assert (request.expected_revision, request.change.reason, request.dry_run) == (3, "why", True)
    told = plain(control_pb2.Route(model="m", document_json=request.document_json))
    assert told["document"] == document
    assert "document_json" not in told
    assert plain(control_pb2.Route())["document"] is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"revisions": 1}, r"unknown field 'revisions': document, expected_revision, .* can be given"),
        ({"expected_revision": "x"}, "expected_revision"),
        ({"expected_revision": 2**70}, "expected_revision"),
        ({"document_json": "{}"}, "unknown field 'document_json'"),
        ({"change": 1}, "another kind|change"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"change": {"reason": [1]}}, "reason"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(given: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        fill(control_pb2.ApplyRequest(), given)


@pytest.mark.parametrize(
    ("message", "given"),
    [
        (control_pb2.SetWeightsRequest(), {"weights": {str(place): "1" for place in range(MOST_ENTRIES + 1)}}),
        (control_pb2.SendFeedbackRequest(), {"items": [{}] * (MOST_ENTRIES + 1)}),
    ],
    ids=["map", "messages"],
)
def test_what_protobuf_reads_one_by_one_is_bounded(message: Message, given: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=f"has {MOST_ENTRIES + 1} entries, at most {MOST_ENTRIES} can be given"):
        fill(message, given)


@pytest.mark.parametrize("text", [b"{", b"[1]", b"1", b"\xff"])
def test_a_body_that_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument, match="request JSON"):
        read_object(text)


def test_a_body_of_too_much_json_is_not_parsed() -> None:
    with pytest.raises(ResourceExhausted, match=f"at most {MAX_JSON_BYTES} are read"):
        read_object(b'{"instances":[' + b"1," * (MAX_JSON_BYTES // 2) + b"1]}")


def test_no_body_is_an_empty_object() -> None:
    assert read_object(b"") == {}
