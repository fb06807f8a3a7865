"""The body of an inference request by REST, read into what the exchanges take: the same query as a gRPC message makes.

JSON first, then the raw data of the inputs that have a `binary_data_size`, in the order of the inputs. A header tells
where the JSON ends; with a length of 0 the whole body is the one input of the model.

What a request says beside its id and its data is kept: a binary request by the bytes of its JSON, one in JSON by the
names, datatypes and shapes in it. A request that says the same again is not checked again; a match is exact.

Source: Open Inference Protocol v2, "Inference Request JSON Object"; Triton's binary tensor data extension.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, cast

import orjson

from gateway.api.decode import MAX_TENSORS, read_header
from gateway.api.naming import check_request_id, shown
from gateway.api.parameters import NONE, check_count, read_request
from gateway.api.signature import MAX_RANK
from gateway.api.template import Query
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.rest.infer_reply import ReplyForm
from gateway.rest.json_tensor import raw_of
from gateway.rest.json_text import check_size, read_json
from gateway.tensor import BY_NAME

_MAX_LEARNED_BYTES: Final = 4096
_MAX_LEARNED: Final = 1024
_ID_FIRST: Final = re.compile(rb'\{"id": ?"([ !#-\[\]-~]{0,256})", ?')
_SIMPLE: Final = frozenset({"name", "shape", "datatype", "data"})
_BINARY_SIZE, _BINARY, _BINARY_OUTPUT = "binary_data_size", "binary_data", "binary_data_output"
_INT64_MAX: Final = (1 << 63) - 1

Body = bytes | memoryview
Object = dict[str, Any]


def id_of(beginning: bytes) -> bytes:
    """Returns the id with which the body begins, as clients write it; empty for none."""
    begins = _ID_FIRST.match(beginning)
    return begins.group(1) if begins is not None else b""


class InferBody:
    """What a body says. `key`: under which to keep it, if the request proves to be good; None: not to be kept.

    Units: `sizes` are bytes of the binary inputs, where all are; `data_size` their sum.
    """

    __slots__ = ("data_size", "form", "key", "query", "raw", "request_id", "sizes")

    def __init__(
        self,
        query: Query,
        request_id: str,
        raw: list[Body],
        form: ReplyForm,
        sizes: tuple[int, ...] = (),
        key: tuple[object, ...] | None = None,
    ) -> None:
        self.query = query
        self.request_id = request_id
        self.raw = raw
        self.form = form
        self.sizes = sizes
        self.key = key
        self.data_size = sum(sizes)


class InferBodies:
    """Reads the bodies of inference requests, and keeps what repeats in them."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], InferBody] = {}

    def read(self, model: str, version: str, body: Body, json_size: int) -> InferBody:
        """Returns what the body says. `json_size` is where its JSON ends, -1: with the body.

        Raises: InvalidArgument, ResourceExhausted (too much JSON).
        """
        size = len(body)
        if json_size < 0:
            json_size = size
        elif json_size > size:
            raise InvalidArgument(
                f"Inference-Header-Content-Length is {json_size}, but the body has {size} bytes, not compressed"
            )
        check_size(json_size)
        text = body if json_size == size and type(body) is bytes else bytes(body[:json_size])
        if json_size < size:
            return self._binary(model, version, text, memoryview(body)[json_size:])
        return self._json(model, version, text, memoryview(b""))

    def keep(self, read: InferBody) -> None:
        """Keeps what a good request said."""
        if read.key is None:
            return
        if len(self._known) >= _MAX_LEARNED:
            self._known.clear()
        query = read.query
        learned = Query(query.model, query.version, query.parameters or NONE, query.request)
        learned.fitted = {}
        self._known[read.key] = InferBody(learned, "", [], read.form, read.sizes)

    def _binary(self, model: str, version: str, text: bytes, data: memoryview) -> InferBody:
        if len(text) > _MAX_LEARNED_BYTES:
            return self._json(model, version, text, data)
        begins = _ID_FIRST.match(text)
        beginning_size = begins.end() if begins is not None else 0
        rest = text[beginning_size:]
        key = (model, version, begins is None, rest)
        known = self._known.get(key)
        if known is not None and known.data_size == len(data):
            raw: list[Body] = []
            offset = 0
            for size in known.sizes:
                raw.append(data[offset : offset + size])
                offset += size
            request_id = begins.group(1).decode() if begins is not None else ""
            return InferBody(known.query, request_id, raw, known.form)
        read = self._json(model, version, text, data)
        if begins is not None and b'"id"' in rest:
            return read  # twice an id: which of them counts is not said by the beginning
        if begins is None and read.request_id:
            return read  # the id is elsewhere, and may be another one the next time
        read.key = key if len(read.sizes) == len(read.raw) else None
        return read

    def _json(self, model: str, version: str, text: bytes, data: memoryview) -> InferBody:
        given = read_json(text)
        if not isinstance(given, dict):
            raise InvalidArgument("the request JSON is not an object")
        booleans = b"true" in text or b"false" in text
        return self.of_object(model, version, given, data, booleans=booleans)

    def of_object(
        self, model: str, version: str, given: Object, data: memoryview, *, booleans: bool = True
    ) -> InferBody:
        """Returns what a request says that was parsed already; `data` is what follows its JSON.

        Raises: InvalidArgument.
        """
        key = None if len(data) else _key(model, version, given)
        known = self._known.get(key) if key is not None else None
        if known is None:
            return _whole(model, version, given, data, key, booleans=booleans)
        request_id = _request_id(given)
        raw: list[Body] = [
            raw_of(tensor["name"], BY_NAME[tensor["datatype"]], tensor["shape"], tensor["data"], booleans=booleans)
            for tensor in given["inputs"]
        ]
        return InferBody(known.query, request_id, raw, known.form)


def _key(model: str, version: str, given: Object) -> tuple[object, ...] | None:
    """Returns what identifies what a request in JSON says beside its id and data; None for one of another form."""
    inputs = given.get("inputs")
    if type(inputs) is not list or len(inputs) > 16:
        return None
    parts: list[object] = [model, version]
    for tensor in inputs:
        if type(tensor) is not dict or tensor.keys() != _SIMPLE:
            return None
        name, datatype, shape = tensor["name"], tensor["datatype"], tensor["shape"]
        if type(name) is not str or type(datatype) is not str or type(shape) is not list or len(shape) > 16:
            return None
        for size in shape:
            if type(size) is not int:
                return None
        parts += (name, datatype, tuple(shape))
    outputs, parameters = given.get("outputs"), given.get("parameters")
    if outputs or parameters:
        said = orjson.dumps([outputs, parameters])
        if len(said) > _MAX_LEARNED_BYTES:
            return None
        parts.append(said)
    return tuple(parts)


def _whole(
    model: str,
    version: str,
    given: Object,
    data: memoryview,
    key: tuple[object, ...] | None,
    *,
    booleans: bool,
) -> InferBody:
    request = pb.ModelInferRequest(model_name=model, model_version=version)
    parameters = dict(_object(given.get("parameters"), "parameters"))
    every = _flag(parameters.pop(_BINARY_OUTPUT, False), "parameter 'binary_data_output'")
    _set_parameters(request.parameters, parameters, "the request")
    sizes: list[int] = []
    raw: list[Body] = []
    for tensor in _objects(given.get("inputs"), "inputs", required=True):
        data = _add_input(request, tensor, data, sizes, raw, booleans=booleans)
    if len(data):
        raise InvalidArgument(
            f"unexpected additional input data for model {shown(model)}: {len(data)} bytes follow those that the "
            "inputs have by their binary_data_size"
        )
    wanted = [_add_output(request, output, every) for output in _objects(given.get("outputs"), "outputs")]
    request_id = _request_id(given)
    read_header(request, raw)
    read = read_request(request) if len(request.parameters) else NONE
    query = Query(model, version, read, request)
    return InferBody(query, request_id, raw, ReplyForm(every, tuple(wanted)), tuple(sizes), key)


def _add_input(
    request: pb.ModelInferRequest,
    tensor: Object,
    data: memoryview,
    sizes: list[int],
    raw: list[Body],
    *,
    booleans: bool,
) -> memoryview:
    """Adds one input to the request and its data to `raw`; returns the binary data that are left.

    Raises: InvalidArgument.
    """
    name = _text(tensor, "name", "an input")
    where = f"input {shown(name)}"
    datatype = _text(tensor, "datatype", where)
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and abs(size) <= _INT64_MAX for size in shape):
        raise InvalidArgument(f"{where}: shape is a list of whole numbers")
    if len(shape) > MAX_RANK:  # before its sizes are multiplied: what so many make takes minutes
        raise InvalidArgument(f"{where} has {len(shape)} dimensions, the limit is {MAX_RANK}")
    message = request.inputs.add(name=name, datatype=datatype, shape=shape)
    parameters = dict(_object(tensor.get("parameters"), f"parameters of {where}"))
    size = parameters.pop(_BINARY_SIZE, None)
    _set_parameters(message.parameters, parameters, where)
    if size is not None:
        if type(size) is not int or size < 0:
            raise InvalidArgument(
                f"{where}: binary_data_size is {shown(repr(size))}, a whole number of bytes is expected"
            )
        if "data" in tensor:
            raise InvalidArgument(f"{where} has both data and a binary_data_size: send one of them")
        if size > len(data):
            raise InvalidArgument(
                f"unable to find data for input tensor {shown(name)}: its binary_data_size is {size}, "
                f"{len(data)} bytes are left behind the JSON"
            )
        sizes.append(size)
        raw.append(data[:size])
        return data[size:]
    if "data" not in tensor:
        if parameters:
            raw.append(b"")  # what is asked for in place of data is refused by name later
            return data
        raise InvalidArgument(
            f"unable to find data for input tensor {shown(name)}: it has neither data nor a binary_data_size"
        )
    known = BY_NAME.get(datatype)
    if known is None:
        raise InvalidArgument(f"{where}: datatype {shown(datatype)} is not one of {', '.join(BY_NAME)}")
    raw.append(raw_of(name, known, shape, tensor["data"], booleans=booleans))
    return data


def _add_output(request: pb.ModelInferRequest, output: Object, every: bool) -> bool:
    """Adds one wanted output to the request; returns whether it is wanted in binary. Raises: InvalidArgument."""
    name = _text(output, "name", "an output")
    where = f"output {shown(name)}"
    message = request.outputs.add(name=name)
    parameters = dict(_object(output.get("parameters"), f"parameters of {where}"))
    binary = _flag(parameters.pop(_BINARY, every), f"parameter 'binary_data' of {where}")
    _set_parameters(message.parameters, parameters, where)
    return binary


def _set_parameters(fields: Any, parameters: Object, where: str) -> None:
    """Raises: InvalidArgument."""
    check_count(len(parameters), where)
    for name, value in parameters.items():
        _set_parameter(fields, name, value, where)


def _set_parameter(fields: Any, name: str, value: object, where: str) -> None:
    """Raises: InvalidArgument."""
    if isinstance(value, bool):
        fields[name].bool_param = value
    elif isinstance(value, int) and value > _INT64_MAX:
        fields[name].uint64_param = value
    elif isinstance(value, int):
        fields[name].int64_param = value
    elif isinstance(value, float):
        fields[name].double_param = value
    elif isinstance(value, str):
        fields[name].string_param = value
    else:
        raise InvalidArgument(f"parameter {shown(name)} of {where} is neither a text, a number nor true or false")


def _request_id(given: Mapping[str, object]) -> str:
    request_id = given.get("id")
    if request_id is None or request_id == "":
        return ""
    if not isinstance(request_id, str):
        raise InvalidArgument("id is a text")
    check_request_id(request_id)
    return request_id


def _text(given: Object, field: str, where: str) -> str:
    value = given.get(field)
    if not isinstance(value, str):
        raise InvalidArgument(f"{where} has no {field}: a text is expected")
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where} is true or false")
    return value


def _object(value: object, where: str) -> Object:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where}: an object is expected")
    return cast(Object, value)


def _objects(value: object, where: str, *, required: bool = False) -> list[Object]:
    if value is None and not required:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidArgument(f"{where}: a list of objects is expected")
    if len(value) > MAX_TENSORS:
        raise InvalidArgument(f"the request has {len(value)} {where}, the limit is {MAX_TENSORS}")
    return cast(list[Object], value)
