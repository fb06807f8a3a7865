"""A PredictRequest as the exchanges take it: the same question in Open Inference Protocol v2, and raw tensors.

Source: tensorflow_serving/apis/predict.proto.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.api.decode import read_header
from gateway.api.naming import shown
from gateway.api.parameters import NONE
from gateway.api.template import Query
from gateway.api.tfserving.model_choice import ModelChoice, read_choice
from gateway.api.tfserving.tensor_proto import GivenTensor, fields, read_tensor
from gateway.api.wire import Raw, read_varint
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb

_SPEC, _INPUTS, _FILTER = 1, 2, 3
_LENGTH: Final = 2
_REMEMBERED: Final = 1024
_MODEL_TAG: Final = 1 << 3 | _LENGTH  # of model_spec in the request, and of the name in it

# What makes two requests the same but for their data.
RequestForm = tuple[ModelChoice, tuple[tuple[str, str, tuple[int, ...]], ...], tuple[str, ...]]


class PredictQuestion(NamedTuple):
    """What a request asks, with its data apart."""

    query: Query
    raw: Raw
    form: RequestForm | None  # None where it was known already


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
        spec, what = b"", "the request"
        given: dict[str, memoryview] = {}
        wanted: list[str] = []
        for number, kind, value in fields(message, what):
            if kind != _LENGTH:
                continue
            if number == _SPEC:
                spec += bytes(value)  # protobuf merges a message that comes in parts
            elif number == _INPUTS:
                name, tensor = _entry(value)
                given[name] = tensor
            elif number == _FILTER:
                wanted.append(_text(value, "output_filter"))
        if not spec:
            raise InvalidArgument("the request has no model_spec: name the model to run in model_spec.name")
        tensors = {name: read_tensor(name, tensor, self._max_bytes) for name, tensor in given.items()}
        return read_choice(spec), tensors, tuple(wanted)


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


def _entry(entry: memoryview) -> tuple[str, memoryview]:
    """Returns the key and the value of an entry of the map of inputs."""
    name, tensor = "", memoryview(b"")
    for number, kind, value in fields(entry, "inputs"):
        if kind == _LENGTH and number == 1:
            name = _text(value, "the name of an input")
        elif kind == _LENGTH and number == 2:
            tensor = value
    return name, tensor


def _text(value: memoryview, what: str) -> str:
    data = bytes(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{what} is not UTF-8: {shown(data.decode(errors='replace'))}") from None
