"""One step of an ensemble as a call: it is routed, merged, cached, mirrored and counted as any call of its model."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.errors import FailedPrecondition, GatewayError, InvalidArgument
from gateway.routing.document.attributes import Attributes
from gateway.serving.call import UNCACHED, Call, Receiver, size_of
from gateway.serving.ensemble_contract import contract_of, match_names
from gateway.serving.ensemble_graph import MOST_CALLS, EnsembleGraph, EnsembleStep
from gateway.serving.version import Version
from gateway.tensor import Buffer, Datatype, TensorSpec

_DEEPEST: Final = 32  # of steps within steps; the loads of ensembles keep far below that


class EnsembleTensors:
    """The tensors of one request to an ensemble, by their numbers; a shape is None until the tensor is there. The
    request brought the first `given`.

    `datatypes` are those that are known: of the inputs, and of what was written. `unread` has how many inputs of
    steps are still to read a tensor that only steps need; what all of them have read is let go.
    """

    __slots__ = ("buffers", "datatypes", "given", "names", "shapes", "unread")

    def __init__(self, graph: EnsembleGraph, call: Call, inputs: Sequence[TensorSpec]) -> None:
        left = len(graph.tensors) - graph.given
        self.given = graph.given
        self.names = graph.tensors
        self.buffers: list[Buffer | None] = [*call.inputs, *[None] * left]
        self.shapes: list[tuple[int, ...] | None] = [*call.shapes, *[None] * left]
        self.datatypes: list[Datatype | None] = [*[spec.datatype for spec in inputs], *[None] * left]
        self.unread = list(graph.reads)

    def let_go(self, step: EnsembleStep) -> None:
        """Keeps none of the tensors that the ended step read, and nobody will any more."""
        for number in step.inputs.values():
            self.unread[number] -= 1
            if not self.unread[number]:
                self.buffers[number] = None

    def first_element(self, number: int) -> str | None:
        """Returns the first element of a tensor as text, where it is a scalar or has one element per row.

        Source: as an edge reads it of a request (`gateway.api.element`).
        """
        buffer, shape, datatype = self.buffers[number], self.shapes[number], self.datatypes[number]
        if buffer is None or shape is None or datatype is None or datatype is Datatype.BF16 or 0 in shape:
            return None
        for size in shape[1:]:
            if size != 1:
                return None
        if isinstance(buffer, bytes | memoryview):
            if datatype is Datatype.BOOL:
                return "true" if buffer[0] else "false"
            return str(np.frombuffer(buffer, datatype.dtype, 1)[0])
        value = buffer.reshape(-1)[0]
        if datatype is Datatype.BOOL:
            return "true" if value else "false"
        if datatype is Datatype.BYTES:
            return _text(value)
        return str(value)


class StepBinding:
    """What a step's maps mean for one version of its model, or why they do not fit it.

    `taken` are the numbers of the tensors that the version's inputs read, -1 where none does. `written` are those that
    its outputs write, in the order in which the call gives them; `wanted` is that of the call.
    """

    __slots__ = ("batches", "label", "limit", "refusal", "specs", "taken", "wanted", "written")

    def __init__(self, step: EnsembleStep, version: Version) -> None:
        self.label = step.label
        self.batches = version.batches
        self.limit = version.config.max_request_rows
        self.specs = version.inputs
        self.refusal: FailedPrecondition | None = None
        self.taken: list[int] = []
        self.written: list[tuple[int, TensorSpec]] = []
        self.wanted: tuple[int, ...] | None = None
        try:
            _, written = match_names(step, contract_of(version))
        except FailedPrecondition as error:
            self.refusal = error
            return
        self.taken = [step.inputs.get(spec.name, -1) for spec in version.inputs]
        self.written = list(written)
        if len(self.written) < len(version.outputs):
            self.wanted = tuple(place for place, spec in enumerate(version.outputs) if spec.name in step.outputs)

    def fill(self, call: Call, tensors: EnsembleTensors) -> None:
        """Gives the call its inputs, checked against the version that was decided.

        Raises: FailedPrecondition (the version has another contract than the ensemble was loaded for),
                InvalidArgument (a tensor has a shape that the version does not take).
        """
        if self.refusal is not None:
            raise self.refusal
        inputs: list[Buffer | None] = []
        shapes: list[tuple[int, ...] | None] = []
        rows = -1
        for number, spec in zip(self.taken, self.specs, strict=True):
            shape = tensors.shapes[number] if number >= 0 else None
            name = repr(tensors.names[number]) if number >= 0 else ""
            if shape is None:
                if not spec.optional:
                    raise InvalidArgument(f"input {spec.name!r} is needed, but tensor {name} is absent")
                inputs.append(None)
                shapes.append(None)
                continue
            datatype = tensors.datatypes[number]
            if datatype is not None and datatype is not spec.datatype:
                raise FailedPrecondition(
                    f"input {spec.name!r} is {spec.datatype.wire_name}, tensor {name} is {datatype.wire_name}"
                )
            if not _fits(spec, shape):
                raise InvalidArgument(
                    f"input {spec.name!r} has shape {list(spec.shape)}, tensor {name} has {list(shape)}"
                )
            if self.batches and shape[0] != rows:
                if rows >= 0:
                    raise InvalidArgument(
                        f"input {spec.name!r} has {shape[0]} rows in tensor {name}, the inputs before it have {rows}"
                    )
                rows = shape[0]
            inputs.append(tensors.buffers[number])
            shapes.append(shape)
        if self.batches and self.limit and rows > self.limit:
            raise InvalidArgument(f"the version takes {self.limit} rows at most, not {rows}")
        call.inputs, call.shapes, call.wanted = inputs, shapes, self.wanted
        call.rows = rows if rows >= 0 else 1

    def take(self, call: Call, tensors: EnsembleTensors) -> None:
        """Keeps what the answered call wrote."""
        for (number, spec), output in zip(self.written, call.outputs, strict=True):
            tensors.buffers[number] = output
            tensors.datatypes[number] = spec.datatype
            if isinstance(output, bytes | memoryview):
                tensors.shapes[number] = (call.rows, *spec.shape[1:])
            else:
                tensors.shapes[number] = output.shape


class CallCount:
    """Counts the calls of the steps of one request, those of the ensembles within it included."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made = 0


class StepCall(Call):
    """The call of one step; it is also what the rules of the step's model may read: the `attributes` of the whole, and
    the tensors of the step, by the names of either side, and of the request.

    `within` are the calls that the steps within it made, where it is an ensemble; `outer` is the step around it.
    """

    __slots__ = ("_attributes", "_tensors", "binding", "count", "depth", "outer", "place", "step", "within")

    def __init__(
        self,
        place: int,
        step: EnsembleStep,
        whole: Call,
        attributes: Attributes,
        request_id: str,
        receiver: Receiver,
        tensors: EnsembleTensors,
        count: CallCount,
    ) -> None:
        super().__init__(step.model, step.version, request_id, receiver, deadline_ns=whole.deadline_ns)
        self.place = place
        self.step = step
        self.level = whole.level
        self.queue_limit_ns = whole.queue_limit_ns
        if whole.cache_key == UNCACHED:
            self.cache_key = UNCACHED
        self.outer: StepCall | None = whole if isinstance(whole, StepCall) else None
        self.within = 0
        self.depth: int = 1 if self.outer is None else self.outer.depth + 1
        self.count = count
        self.binding: StepBinding | None = None
        self._attributes = attributes
        self._tensors = tensors
        size = 0
        for number in step.inputs.values():
            buffer = tensors.buffers[number]
            if buffer is not None:
                size += size_of(buffer)
        self.size_bytes = size

    def check_extent(self) -> None:
        """Raises: FailedPrecondition, if the step is within too many others, or one of too many of its request.

        The load of an ensemble looks at both. Ensembles within it may have grown since.
        """
        if self.depth > _DEEPEST:
            raise FailedPrecondition(f"steps within steps are {_DEEPEST} deep at most")
        self.count.made += 1
        outer = self.outer
        while outer is not None:
            outer.within += 1
            outer = outer.outer
        if self.count.made > MOST_CALLS:
            raise FailedPrecondition(
                f"one request makes {MOST_CALLS} calls at most, those of the ensembles within it included"
            )

    def start_over(self) -> CallCount:
        """Returns the count of the request, without the calls that an attempt made from which this one goes on."""
        self.count.made -= self.within
        outer: StepCall | None = self
        made = self.within
        while outer is not None:
            outer.within -= made
            outer = outer.outer
        return self.count

    def attributes(self) -> Attributes:
        return self

    def metadata(self, name: str) -> str | None:
        return self._attributes.metadata(name)

    def parameter(self, name: str) -> str | int | float | bool | None:
        return self._attributes.parameter(name)

    def input_value(self, name: str) -> str | None:
        """Returns the first element of a tensor that is there whenever the step begins: not of what others wrote for
        others.
        """
        number = self.step.inputs.get(name, -1)
        if number < 0:
            names = self._tensors.names
            number = names.index(name) if name in names else -1
            if number >= self._tensors.given and number not in self.step.inputs.values():
                return None
        return self._tensors.first_element(number) if number >= 0 else None

    @property
    def method(self) -> str | None:
        return getattr(self._attributes, "method", None)

    @property
    def tenant(self) -> str | None:
        return getattr(self._attributes, "tenant", None)

    @property
    def identity(self) -> str | None:
        return getattr(self._attributes, "identity", None)


def at_step(error: GatewayError, step: EnsembleStep) -> GatewayError:
    """Returns the error with the step that it came from; code, and what else it says, stay."""
    named = type(error).__new__(type(error), f"{step.label}: {error}")
    named.__dict__.update(error.__dict__)
    return named


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    if spec.any_shape:
        return True
    expected = spec.shape
    if len(expected) != len(shape):
        return False
    return all(want in (-1, size) for want, size in zip(expected, shape, strict=True))


def _text(value: object) -> str | None:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        return None
