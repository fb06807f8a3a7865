"""A PredictRequest as the exchanges take it: the same question in Open Inference Protocol v2, and raw tensors.

Source: tensorflow_serving/apis/predict.proto.
"""

from collections.abc import Mapping
from math import prod
from typing import Final, NamedTuple

from gateway.api.decode import MAX_TENSORS, read_header
from gateway.api.naming import shown
from gateway.api.parameters import NONE
from gateway.api.template import Query
from gateway.api.tfserving.field_walk import LENGTH, broken, rewritten, walk
from gateway.api.tfserving.model_choice import ModelChoice, read_choice
from gateway.api.tfserving.tensor_proto import (
    MAX_LISTED,
    MAX_TEXTS,
    GivenTensor,
    read_tensor,
    takes_long,
    too_many_listed,
    too_many_texts,
)
from gateway.api.unread_tensor import LONG_BYTES
from gateway.api.varint import read_varint
from gateway.api.wire import Raw
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.pb import tensorflow_serving_pb2 as tfs
from gateway.tensor import Datatype

_SPEC, _INPUTS, _FILTER = 1, 2, 3
_ENTRY: Final = [(1, LENGTH), (2, LENGTH)]  # of the map of inputs: the name and the tensor
_SPEC_BYTES: Final = 4096
_REMEMBERED: Final = 1024
_MODEL_TAG: Final = 1 << 3 | LENGTH  # of model_spec in the request, and of the name in it

# What makes two requests the same but for their data.
RequestForm = tuple[ModelChoice, tuple[tuple[str, str, tuple[int, ...]], ...], tuple[str, ...]]


class PredictQuestion(NamedTuple):
    """What a request asks, with its data apart."""

    query: Query
    raw: Raw
    form: RequestForm | None  # None where it was known already

    @property
    def size_bytes(self) -> int:
        """Returns the bytes of the data."""
        return sum(map(len, self.raw))


class PredictRequests:
    """Reads requests, and remembers what was found right in their like."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._known: dict[RequestForm, Query] = {}

    def read(self, message: bytes | memoryview) -> PredictQuestion:
        """Returns the question.

        Raises: InvalidArgument.
        """
        choice, tensors, wanted = self._parts(memoryview(message))
        return self.of_tensors(choice, tensors, wanted)

    def takes_long(self, message: bytes | memoryview) -> bool:
        """Returns whether to read the message would keep the loop from its other requests."""
        if len(message) <= LONG_BYTES:
            return False
        try:
            parts = _parts_of(memoryview(message))
        except InvalidArgument:
            return False
        return parts is None or any(map(takes_long, parts[1].values()))

    def of_tensors(
        self, choice: ModelChoice, tensors: Mapping[str, GivenTensor], wanted: tuple[str, ...] = ()
    ) -> PredictQuestion:
        """Returns the question that these tensors are the data of; `wanted` are the outputs, () for all.

        Raises: InvalidArgument.
        """
        raw = [tensor.data for tensor in tensors.values()]
        inputs = tuple((name, one.datatype.wire_name, one.shape) for name, one in tensors.items())
        form = choice, inputs, wanted
        known = self._known.get(form)
        if known is not None:
            return PredictQuestion(known, raw, None)
        request = pb.ModelInferRequest(model_name=choice.model, model_version=choice.version)
        for name, datatype, shape in inputs:
            request.inputs.add(name=name, datatype=datatype, shape=shape)
        for name in wanted:
            request.outputs.add(name=name)
        model, version, _ = read_header(request, raw)
        return PredictQuestion(Query(model, version, NONE, request), raw, form)

    def keep(self, question: PredictQuestion) -> None:
        """Remembers that the question was right: of its like only the data are looked at."""
        if question.form is None:
            return
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        question.query.fitted = {}
        self._known[question.form] = question.query

    def _parts(self, message: memoryview) -> tuple[ModelChoice, dict[str, GivenTensor], tuple[str, ...]]:
        parts = _parts_of(message)
        if parts is None:
            parts = _parts_of(rewritten(tfs.PredictRequest, message, "the request"))
            if parts is None:
                raise broken("the request")
        spec, given, wanted = parts
        if not spec:
            raise InvalidArgument("the request has no model_spec: name the model to run in model_spec.name")
        if len(spec) > _SPEC_BYTES:
            raise InvalidArgument(f"model_spec has {len(spec)} bytes, the limit is {_SPEC_BYTES}")
        if len(given) > MAX_TENSORS:
            raise InvalidArgument(f"the request has {len(given)} inputs, the limit is {MAX_TENSORS}")
        tensors: dict[str, GivenTensor] = {}
        left, texts, listed = self._max_bytes, 0, 0
        for name, value in given.items():
            tensor = tensors[name] = read_tensor(name, value, left)
            left -= len(tensor.data)  # a few bytes can be filled up to many, in each input
            if tensor.datatype is Datatype.BYTES:
                texts += prod(tensor.shape)
            elif not isinstance(tensor.data, memoryview):
                listed += prod(tensor.shape)
            if texts > MAX_TEXTS:
                raise too_many_texts("the request", texts)
            if listed > MAX_LISTED:
                raise too_many_listed("the request", listed)
        return read_choice(spec), tensors, wanted


def leading_model(lead: bytes) -> str:
    """Returns the model that a message names in its first bytes, as serializers write it; "" if it is not there."""
    if lead[:1] != bytes((_MODEL_TAG,)):
        return ""
    _, start = read_varint(lead, 1)
    if start < 0 or lead[start : start + 1] != bytes((_MODEL_TAG,)):
        return ""
    length, start = read_varint(lead, start + 1)
    if start < 0 or start + length > len(lead):
        return ""
    return lead[start : start + length].decode(errors="replace")


def _parts_of(message: memoryview) -> tuple[bytes, dict[str, memoryview], tuple[str, ...]] | None:
    """Returns the model_spec, the inputs and the names of outputs; None where protobuf has to look at it.

    Raises: InvalidArgument (a name that is not UTF-8).
    """
    walked = walk(message)
    if walked is None:
        return None
    spec: bytes | None = None
    given: dict[str, memoryview] = {}
    wanted: list[str] = []
    for number, kind, value in walked[0]:
        if kind != LENGTH:
            continue
        if number == _SPEC:
            if spec is not None:
                return None
            spec = bytes(value)
        elif number == _INPUTS:
            entry = walk(value)
            if entry is None or [field[:2] for field in entry[0]] != _ENTRY:
                return None
            name = _text(entry[0][0][2], "the name of an input")
            if name in given:
                return None
            given[name] = entry[0][1][2]
        elif number == _FILTER:
            wanted.append(_text(value, "output_filter"))
    return spec or b"", given, tuple(wanted)


def _text(value: memoryview, what: str) -> str:
    data = bytes(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{what} is not UTF-8: {shown(data.decode(errors='replace'))}") from None
