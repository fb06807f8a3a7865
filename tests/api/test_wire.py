"""Large requests: what is taken apart by hand is what protobuf would have read."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.api.wire import LARGE_BYTES, _without_raw, leading_names, parse, varint
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from tests.api.requests import raw_request


def test_raw_tensors_of_a_large_request_are_views_of_it() -> None:
    data = bytes(range(256)) * (LARGE_BYTES // 256)
    message = raw_request(shape=(len(data) // 16, 4), data=data).SerializeToString()
    request, raw = parse(message)
    assert request.inputs[0].name == "x"
    assert not request.raw_input_contents
    assert isinstance(raw[0], memoryview)
    assert raw[0].obj is message
    assert raw[0] == data


def test_small_requests_are_left_to_protobuf() -> None:
    request, raw = parse(raw_request().SerializeToString())
    assert raw == request.raw_input_contents == [bytes(16)]


@pytest.mark.parametrize("field", [b"\x3a\x00", b"\x2a\x00", b"\x0a\x00", b"\xfa\x01\x00"])
def test_more_fields_than_a_request_has_are_refused_before_they_are_objects(field: bytes) -> None:
    """32 MiB of empty tensors were 16 million objects, 3 GiB, or kept a worker for seconds."""
    with pytest.raises(InvalidArgument, match="more than 4096 fields"):
        parse(field * LARGE_BYTES)
    with pytest.raises(InvalidArgument, match="in another form 1048576 bytes are read"):
        parse(b"\x08\x00" + field * (1 << 20))  # what is not counted is not read either
    small = field * 5000  # at protobuf's cost, which is little
    assert len(parse(small)[1]) in (0, 5000)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.builds(lambda data: b"\x3a" + varint(len(data)) + data, st.binary(max_size=200)),
            st.builds(lambda text: b"\x0a" + varint(len(text.encode())) + text.encode(), st.text(max_size=5)),
            st.just(b"\xba\x00\x01a"),  # the tag written longer than it has to be
            st.just(b"\x3a\x81\x00a"),  # so the length
        ),
        max_size=6,
    )
)
def test_taking_apart_by_hand_changes_nothing(fields: list[bytes]) -> None:
    message = b"".join(fields)
    views: list[memoryview] = []
    rest = _without_raw(message, views)
    if rest is None:
        return  # protobuf reads the whole message
    expected = _read(message)
    if expected is None:
        assert _read(rest) is None
        return
    read = pb.ModelInferRequest.FromString(rest)
    assert [bytes(view) for view in views] == list(expected.raw_input_contents)
    del expected.raw_input_contents[:]
    assert read == expected


def _read(message: bytes) -> pb.ModelInferRequest | None:
    try:
        return pb.ModelInferRequest.FromString(message)
    except DecodeError:
        return None


@pytest.mark.parametrize("padding", [0, LARGE_BYTES])
def test_bytes_that_are_no_request_are_refused(padding: int) -> None:
    for broken in (b"\xff" * 16, b"\x0a\x02\xff\xfe", b"\x3a\x7f", b"\x0b" * 5000):
        with pytest.raises(InvalidArgument, match="are not a ModelInferRequest"):
            parse(b"\x3a" + varint(padding) + bytes(padding) + broken)


@given(st.integers(0, 2**64 - 1))
def test_varints_are_protobufs(value: int) -> None:
    message = pb.InferParameter(uint64_param=value).SerializeToString()
    assert message[1:] == varint(value)


@given(model=st.text(max_size=40), version=st.text(max_size=8), cut=st.integers(0, 60))
@example(model="m", version="", cut=60)
def test_the_names_that_a_message_begins_with_are_its_own(model: str, version: str, cut: int) -> None:
    message = pb.ModelInferRequest(model_name=model, model_version=version, id="i", raw_input_contents=[b"x" * 99])
    content = message.SerializeToString()
    assert leading_names(content) == (model, version if model else "")
    known = leading_names(content[:cut])
    assert known in ((model, version), (model, ""), ("", ""))


@pytest.mark.parametrize("lead", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\xff\x01", b"\x0a\x02\xff\xfe", b"\x12\x01m"])
def test_a_beginning_of_another_form_names_nothing(lead: bytes) -> None:
    assert leading_names(lead) == ("", "")
