"""A call as it stands at the edge, and what its answer takes."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from gateway.api.answer_metadata import REQUEST_ID, id_bytes
from gateway.api.caller import Caller, ForeignCaller
from gateway.api.element import first_element
from gateway.api.encode import are_long
from gateway.api.naming import MAX_ID
from gateway.api.parameters import Value
from gateway.api.signature import Reply, Signature
from gateway.api.template import Query
from gateway.api.unread_tensor import Input, read_all
from gateway.api.wire import Raw
from gateway.errors import GatewayError
from gateway.pb import inference_pb2 as pb
from gateway.routing.document.attributes import Attributes
from gateway.routing.document.source import METHODS
from gateway.serving.call import Call
from gateway.tensor import Buffer

_MANY_ROWS: Final = 256  # to be classified one by one


class Exchange(Call):
    """A call as it stands at the edge; it is also what routing may read of the request."""

    __slots__ = ("caller", "foreign", "parameters", "query", "raw", "reply", "reports_load", "signature", "streamed")
    __deletable__: ClassVar = ["query", "raw"]  # mypyc asks for it

    caller: Caller
    foreign: ForeignCaller | None
    parameters: Mapping[str, Value]
    query: Query
    raw: Raw
    reply: Reply
    reports_load: bool  # whether its trailers tell the worker's load, where that is told
    signature: Signature
    streamed: bool

    def attributes(self) -> Attributes:
        return self

    def metadata(self, name: str) -> str | None:
        return self.caller.metadata_value(name)

    def parameter(self, name: str) -> Value | None:
        return self.parameters.get(name)

    def input_value(self, name: str) -> str | None:
        return first_element(self.query.request, self.raw, self.query.packed, name)

    @property
    def method(self) -> str:
        return METHODS[self.streamed]

    @property
    def tenant(self) -> str:
        return self.caller.principal.tenant

    @property
    def identity(self) -> str:
        return self.caller.principal.name


def read_unless_answered(call: Call, inputs: Sequence[Input]) -> list[Buffer | None]:
    return [] if call.answered else read_all(inputs)


def takes_long(exchange: Exchange) -> bool:
    """Returns whether to write the answer would keep the loop from its other requests."""
    foreign, reply = exchange.foreign, exchange.reply
    if foreign is not None:
        return foreign.takes_long(exchange, reply)
    if not reply.by_element:
        return False
    return are_long(exchange.outputs) or (reply.classes is not None and exchange.rows > _MANY_ROWS)


def fail_unread(request: pb.ModelInferRequest, error: GatewayError, caller: Caller) -> None:
    """Tells the caller of an error in a request that was not begun, with the id that it gave, if that can be one."""
    if request.id and len(request.id) <= MAX_ID and request.id.isprintable():
        caller.set_trailing_metadata((), (REQUEST_ID, id_bytes(request.id)))
    caller.fail(error)
