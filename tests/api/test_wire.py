"""Large requests: what is taken apart by hand is what protobuf would have read."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.api.packed_contents import PackedContents
from gateway.api.varint import varint
from gateway.api.wire import LARGE_BYTES, _without_tensors, leading_names, parse
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from tests.api.requests import raw_request


def test_raw_tensors_of_a_large_request_are_views_of_it() -> None:
    data = bytes(range(256)) * (LARGE_BYTES // 256)
    message = raw_request(shape=(len(data) // 16, 4), data=data).SerializeToString()
    request, raw, _ = parse(message)
    assert request.inputs[0].name == "x"
    assert not request.raw_input_contents
    assert isinstance(raw[0], memoryview)
    assert raw[0].obj is message
    assert raw[0] == data


def test_small_requests_are_left_to_protobuf() -> None:
    request, raw, packed = parse(raw_request().SerializeToString())
    assert raw == request.raw_input_contents == [bytes(16)]
    assert not packed


@pytest.mark.parametrize("field", [b"\x3a\x00", b"\x2a\x00", b"\x0a\x00", b"\xfa\x01\x00"])
def test_more_fields_than_a_request_has_are_refused_before_they_are_objects(field: bytes) -> None:
    """32 MiB of empty tensors were 16 million objects, 3 GiB, or kept a worker for seconds."""
    with pytest.raises(InvalidArgument, match="more than 4096 fields"):
        parse(field * LARGE_BYTES)
    with pytest.raises(InvalidArgument, match="in another form 1048576 bytes are read"):
        parse(b"\x08\x00" + field * (1 << 20))  # what is not counted is not read either
    small = field * 5000  # at protobuf's cost, which is little
    assert len(parse(small)[1]) in (0, 5000)


def filled(contents: bytes) -> bytes:
    """A serialized input with these contents, long enough to be taken apart."""
    return (b"\x2a" + varint(len(contents)) + contents) + b"\x0a\xff\x1f" + b"n" * 4095


# Contents of one list, of several, in pieces, cut, and of none.
INPUTS = st.builds(
    filled,
    st.one_of(
        st.builds(lambda tag, data: bytes((tag << 3 | 2,)) + varint(len(data)) + data, st.integers(1, 9), st.binary()),
        st.builds(lambda texts: b"".join(b"\x42" + varint(len(text)) + text for text in texts), st.lists(st.binary())),
        st.binary(max_size=20),
    ),
)


def fields_of(taken: PackedContents) -> bytes:
    """What was taken out, as protobuf reads it."""
    number = pb.InferTensorContents.DESCRIPTOR.fields_by_name[taken.field].number
    data = bytes(taken.data)
    return data if taken.field == "bytes_contents" else varint(number << 3 | 2) + varint(len(data)) + data


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.builds(lambda data: b"\x3a" + varint(len(data)) + data, st.binary(max_size=200)),
            st.builds(lambda text: b"\x0a" + varint(len(text.encode())) + text.encode(), st.text(max_size=5)),
            st.just(b"\xba\x00\x01a"),  # the tag written longer than it has to be
            st.just(b"\x3a\x81\x00a"),  # so the length
            st.builds(lambda data: b"\x2a" + varint(len(data)) + data, INPUTS),
        ),
        max_size=6,
    )
)
def test_taking_apart_by_hand_changes_nothing(fields: list[bytes]) -> None:
    message = b"".join(fields)
    views: list[memoryview] = []
    packed: dict[int, PackedContents] = {}
    rest = _without_tensors(message, views, packed)
    if rest is None:
        return  # protobuf reads the whole message
    expected = _read(message)
    if expected is None:
        assert packed or _read(rest) is None  # a list that is none is refused when its numbers are made
        return
    read = pb.ModelInferRequest.FromString(rest)
    assert [bytes(view) for view in views] == list(expected.raw_input_contents)
    del expected.raw_input_contents[:]
    for place, taken in packed.items():
        assert read.inputs[place].HasField("contents")
        read.inputs[place].contents.MergeFromString(fields_of(taken))
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
