"""Requests to tensors: a ModelInferRequest checked against the contract of the version that will serve it.

Source: Open Inference Protocol v2, ModelInfer; the texts follow Triton's, which people search for.
"""

from collections.abc import Sequence
from functools import partial
from math import prod

from gateway.api.contents import check_bool, check_elements, from_typed, split_bytes
from gateway.api.naming import check_model_name, check_request_id, check_version, shown
from gateway.api.packed_contents import PackedContents
from gateway.api.parameters import check_tensor, class_count
from gateway.api.signature import FittedShape, InputPlan, Reply, Signature, unexpected_input
from gateway.api.unread_tensor import LONG_BYTES, LONG_ELEMENTS, Input, UnreadTensor
from gateway.api.wire import UNPACKED, Packed, Raw
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.tensor import Datatype

MAX_TENSORS = 256

Decoded = tuple[Sequence[Input], Sequence[tuple[int, ...] | None], int, Reply]


def read_header(request: pb.ModelInferRequest, raw: Raw) -> tuple[str, str, str]:
    """Returns model, requested version and id of a request: what can be checked before the version is known.

    Raises: InvalidArgument (names, id, number of tensors).
    """
    model, version, request_id = request.model_name, request.model_version, request.id
    check_model_name(model)
    if version:
        check_version(version)
    if request_id:
        check_request_id(request_id)
    inputs = max(len(request.inputs), len(raw))
    if inputs > MAX_TENSORS:
        raise InvalidArgument(f"the request has {inputs} inputs, the limit is {MAX_TENSORS}")
    outputs = len(request.outputs)
    if outputs > MAX_TENSORS:
        raise InvalidArgument(f"the request asks for {outputs} outputs, the limit is {MAX_TENSORS}")
    return model, version, request_id


def decode(request: pb.ModelInferRequest, raw: Raw, signature: Signature, packed: Packed = UNPACKED) -> Decoded:
    """Returns the request's (inputs, shapes, rows, reply). `raw` are its raw_input_contents, `packed` taken contents.

    Shapes: inputs and shapes follow the version's inputs, None for an optional one left out. Raw numeric data stay the
            bytes that `raw` gave, of exactly the right length. Long lists have still to be made.
    Raises: InvalidArgument, Unimplemented (shared memory).
    """
    tensors = request.inputs
    plans = signature.plans
    count = len(tensors)
    sent_raw = len(raw)
    if sent_raw and sent_raw != count:
        raise _raw_count(request, sent_raw, signature)
    inputs: list[Input] = [None] * len(plans)
    shapes: list[tuple[int, ...] | None] = [None] * len(plans)
    rows = -1
    required = 0
    for position in range(count):  # iterating over a repeated field costs twice as much
        tensor = tensors[position]
        plan = plans.get(tensor.name)
        if plan is None:
            raise unexpected_input(tensor.name, signature)
        index = plan.index
        if shapes[index] is not None:
            raise InvalidArgument(f"input {plan.spec.name!r} already exists in request")
        fit = _fit(tensor, plan)
        if fit.rows != rows:
            if rows >= 0:
                raise _rows(fit, rows, plan)
            rows = fit.rows
        shapes[index] = fit.shape
        taken = packed.get(position) if packed else None
        inputs[index] = _data(tensor, plan, fit, raw[position] if sent_raw else None, taken)
        required += not plan.spec.optional
    if required != signature.required or (rows < 0 and plans):
        raise _missing(signature, shapes, count)
    if rows < 0:
        rows = 1  # a model without inputs
    typed = count > 0 and not sent_raw  # without any input the answer is raw, as Triton's is
    outputs = request.outputs
    if len(outputs):
        return inputs, shapes, rows, _reply(outputs, signature, typed=typed)
    return inputs, shapes, rows, signature.typed_reply if typed else signature.raw_reply


def _fit(tensor: pb.ModelInferRequest.InferInputTensor, plan: InputPlan) -> FittedShape:
    """Returns the tensor's shape as it fits; datatype and parameters are checked as well."""
    if len(tensor.parameters):
        check_tensor(tensor.name, tensor.parameters, "input")
    if tensor.datatype != plan.wire_name:
        raise InvalidArgument(
            f"inference input data-type for input {plan.spec.name!r} is {shown(tensor.datatype)}, "
            f"but model {plan.model!r} expects {plan.wire_name!r}"
        )
    shape = tuple(tensor.shape[:])
    return plan.fits.get(shape) or plan.fit(shape)


def _data(
    tensor: pb.ModelInferRequest.InferInputTensor,
    plan: InputPlan,
    fit: FittedShape,
    data: bytes | memoryview | UnreadTensor | None,
    packed: PackedContents | None,
) -> Input:
    """Returns the tensor's data: its raw entry if there is one, else its contents."""
    name = plan.spec.name
    if data is None:
        if packed is not None:
            return packed.tensor(name, plan.datatype, fit.shape)
        if fit.size_bytes > LONG_BYTES or (fit.size_bytes < 0 and prod(fit.shape) > LONG_ELEMENTS):
            return UnreadTensor(partial(from_typed, name, plan.datatype, tensor.contents, fit.shape), 0)
        return from_typed(name, plan.datatype, tensor.contents, fit.shape)
    if tensor.HasField("contents"):
        raise InvalidArgument(
            f"contents field must not be specified when using raw_input_contents for {name!r} for model {plan.model!r}"
        )
    if isinstance(data, UnreadTensor):
        return data
    if plan.datatype is Datatype.BYTES:
        if len(data) > LONG_BYTES:
            check_elements(name, prod(fit.shape))
            return UnreadTensor(partial(split_bytes, name, data, fit.shape), len(data))
        return split_bytes(name, data, fit.shape)
    if len(data) != fit.size_bytes:
        raise InvalidArgument(
            f"input byte size mismatch for input {name!r} for model {plan.model!r}. "
            f"Expected {fit.size_bytes}, got {len(data)}"
        )
    if not plan.takes_any_bytes:
        check_bool(name, data)
    return data


def _reply(
    outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor], signature: Signature, *, typed: bool
) -> Reply:
    places = signature.output_index
    wanted: list[int] = []
    classes: list[int] = []
    for output in outputs:
        index = places.get(output.name)
        if index is None:
            raise InvalidArgument(
                f"unexpected inference output {shown(output.name)} for model {signature.model!r}; "
                f"its outputs are {', '.join(places)}"
            )
        count = 0
        if len(output.parameters):
            check_tensor(output.name, output.parameters, "output")
            count = class_count(output.name, output.parameters)
            if count and signature.outputs[index].datatype in (Datatype.BYTES, Datatype.BOOL):
                raise InvalidArgument(
                    f"classification is not possible for output {output.name!r}: its datatype is "
                    f"{signature.outputs[index].datatype.wire_name}"
                )
        if index in wanted:  # as Triton has it: asked for twice, told once
            if classes[wanted.index(index)] != count:
                raise InvalidArgument(f"output {output.name!r} already exists in request, in another form")
            continue
        wanted.append(index)
        classes.append(count)
    return signature.reply(tuple(wanted), tuple(classes), typed=typed)


def _rows(fit: FittedShape, rows: int, plan: InputPlan) -> InvalidArgument:
    return InvalidArgument(
        f"input {plan.spec.name!r} batch size does not match other inputs for {plan.model!r}: "
        f"{fit.rows} rows, {rows} in the inputs before it"
    )


def _missing(signature: Signature, shapes: Sequence[tuple[int, ...] | None], count: int) -> InvalidArgument:
    absent = [
        spec.name for spec, shape in zip(signature.inputs, shapes, strict=True) if shape is None and not spec.optional
    ]
    given = [spec.name for spec, shape in zip(signature.inputs, shapes, strict=True) if shape is not None]
    return InvalidArgument(
        f"expected {len(signature.inputs)} inputs but got {count} inputs for model {signature.model!r}. "
        f"Got input(s) {given}, but missing required input(s) {absent}. Please provide all required input(s)."
    )


def _raw_count(request: pb.ModelInferRequest, given: int, signature: Signature) -> InvalidArgument:
    for tensor in request.inputs:
        # An input in shared memory has no entry: that is the reason to name then.
        check_tensor(tensor.name, tensor.parameters, "input")
    expected = len(request.inputs)
    if given > expected:
        return InvalidArgument(
            f"raw_input_contents has {given} entries for {expected} inputs for model {signature.model!r}"
        )
    return InvalidArgument(
        f"unable to find data for input tensor {shown(request.inputs[given].name)} for model {signature.model!r}: "
        f"raw_input_contents has {given} entries for {expected} inputs"
    )
