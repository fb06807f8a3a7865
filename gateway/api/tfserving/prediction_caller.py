"""The callers of PredictionService, as exchanges see them: who asks, and in which message the answer goes out."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from gateway.access.principal import Principal
from gateway.access.quota_pass import QuotaPass
from gateway.api.contents import PACKED_AS_RAW
from gateway.api.encode import are_long
from gateway.api.signature import Reply, Signature
from gateway.api.tfserving.model_choice import spec_of
from gateway.api.tfserving.tensor_proto import CARRIED, write_tensor
from gateway.api.varint import varint
from gateway.errors import GatewayError, InvalidArgument, ResourceExhausted
from gateway.rpc.handler import CallbackContext, Metadata, OwnMetadatum
from gateway.serving.call import Call, arrays_of
from gateway.tensor import Array, TensorSpec

# Makes a serialized answer of a version's outputs; the last argument is the version's name.
AnswerForm = Callable[[Sequence[TensorSpec], Sequence[Array], str, str], bytes]

_OUTPUTS, _SPEC, _KEY, _VALUE = b"\x0a", b"\x12", b"\x0a", b"\x12"  # fields 1 and 2, length-delimited


class PredictionCaller:
    """A `ForeignCaller` over one call of TensorFlow Serving's protocol.

    `form` makes its answer of outputs that `check` has let pass. `size_bytes` are those of the inputs: a message
    with lists to be filled up counts as what it is filled up to.
    """

    __slots__ = ("_answer", "_check", "_context", "_form", "_size_bytes")

    def __init__(
        self,
        context: CallbackContext,
        form: AnswerForm,
        check: Callable[[Sequence[TensorSpec]], object],
        size_bytes: int,
    ) -> None:
        self._context = context
        self._size_bytes = size_bytes
        self._form = form
        self._check = check
        self._answer = b""

    @property
    def deadline_ns(self) -> int:
        return self._context.deadline_ns

    @property
    def message_size(self) -> int:
        return max(self._context.message_size, self._size_bytes)

    @property
    def principal(self) -> Principal:
        return self._context.principal

    @property
    def quota_pass(self) -> QuotaPass | None:
        return self._context.quota_pass

    @property
    def protocol(self) -> str:
        return "tensorflow.serving.PredictionService"

    def metadata_value(self, name: str) -> str | None:
        return self._context.metadata_value(name)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        self._context.on_cancel(callback)

    def set_trailing_metadata(self, trailing_metadata: Metadata, own: OwnMetadatum | None = None) -> None:
        self._context.set_trailing_metadata(trailing_metadata, own)

    def accept(self, signature: Signature, reply: Reply) -> None:
        self._check(reply.specs)

    def takes_long(self, call: Call, reply: Reply) -> bool:
        return are_long(call.outputs) and any(spec.datatype not in PACKED_AS_RAW for spec in reply.specs)

    def write(self, call: Call, signature: Signature, reply: Reply, max_bytes: int) -> None:
        arrays = arrays_of(call.outputs, reply.specs, call.rows)
        answer = self._form(reply.specs, arrays, signature.model, signature.version)
        if len(answer) > max_bytes:
            raise ResourceExhausted(f"the response has {len(answer)} bytes, the limit is {max_bytes}")
        self._answer = answer

    def answer(self, message: bytes) -> None:
        self._context.answer(self._answer)

    def fail(self, error: GatewayError) -> None:
        self._context.fail(error)


def check_carried(specs: Sequence[TensorSpec]) -> None:
    """Checks that TensorFlow's protocol can carry the outputs. Raises: InvalidArgument."""
    for spec in specs:
        if spec.datatype not in CARRIED:
            raise InvalidArgument(
                f"output {spec.name!r} has the datatype {spec.datatype.wire_name}, which TensorFlow's protocol "
                "does not carry: ask for other outputs by output_filter, or by Open Inference Protocol v2"
            )


def predict_response(specs: Sequence[TensorSpec], arrays: Sequence[Array], model: str, version: str) -> bytes:
    """Returns the serialized PredictResponse with these outputs."""
    pieces: list[bytes] = []
    for spec, array in zip(specs, arrays, strict=True):
        name, tensor = spec.name.encode(), write_tensor(spec, array)
        head = _KEY + varint(len(name)) + name + _VALUE + varint(len(tensor))
        pieces += (_OUTPUTS, varint(len(head) + len(tensor)), head, tensor)
    pieces.append(_named(model, version))
    return b"".join(pieces)


@lru_cache(1024)
def _named(model: str, version: str) -> bytes:
    spec = spec_of(model, version).SerializeToString()
    return _SPEC + varint(len(spec)) + spec
