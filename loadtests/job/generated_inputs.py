"""Inputs drawn by the model's metadata: every datatype, axes of any size, at least so many bytes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from typing import Final

import numpy as np

from gateway.errors import InvalidArgument
from gateway.tensor import Array, Datatype
from loadtests.job.model_signature import ModelSignature, SignatureInput
from loadtests.job.request_tensor import Inputs, RequestTensor, tensor_from
from loadtests.job.scenario_plan import InputPlan, PayloadPlan

_TEXT_BYTES: Final = 8
_LETTERS: Final = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
_HIGHEST_WHOLE: Final = 10  # small: whole numbers often are the places of something
_MOST_BYTES: Final = 1 << 30


def generate(signature: ModelSignature, plan: PayloadPlan) -> list[Inputs]:
    """Returns `plan.distinct` sets of inputs; the same for the same seed. Raises: InvalidArgument."""
    known = {one.name for one in signature.inputs}
    if unknown := [name for name in plan.inputs if name not in known]:
        raise InvalidArgument(
            f"payload: model {signature.model!r} has no input {unknown[0]!r}; it has {', '.join(known)}"
        )
    shapes, text_bytes = _shapes(signature, plan)
    draw = np.random.default_rng(plan.seed)
    return [
        tuple(
            _drawn(one, shapes[one.name], plan.inputs.get(one.name, InputPlan()), text_bytes, draw)
            for one in signature.inputs
        )
        for _ in range(plan.distinct)
    ]


def open_axes(signature: ModelSignature, plan: PayloadPlan) -> list[str]:
    """Returns a line for each axis of any size, after the first, for which no size was given: it is drawn as 1."""
    return [
        f"input {one.name!r} {list(one.shape)}: axis {axis} has any size and is sent as 1 (--shape {one.name}=...)"
        for one in signature.inputs
        for axis, size in enumerate(one.shape)
        if axis and size < 0 and not plan.size_bytes and (plan.inputs.get(one.name) or InputPlan()).shape is None
    ]


def _shapes(signature: ModelSignature, plan: PayloadPlan) -> tuple[Mapping[str, tuple[int, ...]], int]:
    """Returns the shape of each input, and the length of texts, that make a request as long as it has to be."""

    def shapes(rows: int, inner: int) -> dict[str, tuple[int, ...]]:
        return {one.name: _shape(one, plan, rows, inner) for one in signature.inputs}

    def total(of: Mapping[str, tuple[int, ...]], text_bytes: int = _TEXT_BYTES) -> int:
        return sum(prod(of[one.name]) * (one.datatype.size or 4 + text_bytes) for one in signature.inputs)

    made = shapes(plan.rows, 1)
    if plan.size_bytes <= total(made):
        return made, _TEXT_BYTES
    if plan.size_bytes > _MOST_BYTES:
        raise InvalidArgument(f"payload.generate.bytes: at most {_MOST_BYTES >> 20} MiB")
    for rows, inner in ((plan.rows, 2), (2 * plan.rows, 1)):  # the inner axes grow, else the rows
        more = total(shapes(rows, inner)) - total(made)
        if more > 0 and not (inner == 1 and plan.rows > 1):
            steps = ceil((plan.size_bytes - total(made)) / more)
            grown = shapes(plan.rows, 1 + steps) if inner == 2 else shapes(plan.rows * (1 + steps), 1)
            return grown, _TEXT_BYTES
    texts = sum(prod(made[one.name]) for one in signature.inputs if one.datatype is Datatype.BYTES)
    if texts:
        return made, _TEXT_BYTES + ceil((plan.size_bytes - total(made)) / texts)
    raise InvalidArgument(
        f"payload.generate.bytes: requests of model {signature.model!r} have {total(made)} bytes: it has no "
        "axis of any size and no input of BYTES"
    )


def _shape(one: SignatureInput, plan: PayloadPlan, rows: int, inner: int) -> tuple[int, ...]:
    given = plan.inputs.get(one.name, InputPlan()).shape
    if given is not None:
        if len(given) != len(one.shape) or any(
            size not in (-1, want) for size, want in zip(one.shape, given, strict=True)
        ):
            raise InvalidArgument(f"payload: shape {list(given)} does not fit input {one.name!r} {list(one.shape)}")
        return given
    return tuple(size if size >= 0 else rows if axis == 0 else inner for axis, size in enumerate(one.shape))


def _drawn(
    one: SignatureInput, shape: Sequence[int], plan: InputPlan, text_bytes: int, draw: np.random.Generator
) -> RequestTensor:
    kind, count = one.datatype, prod(shape)
    if plan.texts and kind is not Datatype.BYTES:
        raise InvalidArgument(f"payload: input {one.name!r} is {kind.wire_name}, texts are for BYTES")
    array: Array
    if kind is Datatype.BYTES:
        array = np.empty(count, object)
        array[:] = (
            [text.encode() for text in draw.choice(plan.texts, count)]
            if plan.texts
            else [draw.choice(_LETTERS, text_bytes).tobytes() for _ in range(count)]
        )
    elif kind is Datatype.BOOL:
        array = draw.integers(0, 2, count).astype(bool)
    elif kind.is_float:
        low = plan.low if plan.low is not None else 0.0
        numbers = draw.uniform(low, plan.high if plan.high is not None else max(1.0, low + 1), count).astype(np.float32)
        if kind is Datatype.BF16:
            array = (numbers.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        else:
            array = numbers.astype(kind.dtype)
    else:
        bounds = np.iinfo(kind.dtype)
        low = int(plan.low) if plan.low is not None else 0
        high = int(plan.high) if plan.high is not None else max(low, _HIGHEST_WHOLE - 1)
        if low < bounds.min or high > bounds.max:
            raise InvalidArgument(f"payload: input {one.name!r} of {kind.wire_name} cannot hold {low} to {high}")
        array = draw.integers(low, high, count, dtype=np.dtype(kind.dtype).newbyteorder("=").type, endpoint=True)
    return replace(tensor_from(one.name, kind, array), shape=tuple(shape))
