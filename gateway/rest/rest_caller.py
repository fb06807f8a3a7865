"""The caller of one inference request by REST: what routing reads of it, and how its outcome becomes an answer."""

from collections.abc import Callable
from typing import Final

from gateway.access.principal import Principal
from gateway.access.quota_pass import QuotaPass
from gateway.api.exchange import Metadata
from gateway.api.signature import Reply, Signature
from gateway.errors import GatewayError
from gateway.rest.answer_coding import respond_coded
from gateway.rest.http_call import Fields, HttpCall
from gateway.rest.infer_reply import ReplyBody, ReplyForm, check_form, write_reply
from gateway.rest.prediction import write_predictions
from gateway.rpc.handler import OwnMetadatum
from gateway.serving.call import Call

_JSON: Final = (b"content-type", b"application/json")
_BINARY: Final = (b"content-type", b"application/octet-stream")
_NONE: Final = ReplyBody([], -1)
_REMEMBERED: Final = 4096
# Fields by what an exchange calls its trailing metadata: for answers in JSON, for binary ones, for errors.
_fields: dict[Metadata, tuple[Fields, Fields, Fields]] = {}


class RestCaller:
    """A `ForeignCaller` over one HTTP request."""

    __slots__ = ("_body", "_call", "_form", "_own", "_trailers")

    def __init__(self, call: HttpCall, form: ReplyForm) -> None:
        self._call = call
        self._form = form
        self._body: ReplyBody = _NONE
        self._trailers: Metadata = ()
        self._own: OwnMetadatum | None = None

    @property
    def deadline_ns(self) -> int:
        return self._call.deadline_ns

    @property
    def message_size(self) -> int:
        return self._call.message_size

    @property
    def principal(self) -> Principal:
        return self._call.principal

    @property
    def quota_pass(self) -> QuotaPass | None:
        return self._call.quota_pass

    @property
    def protocol(self) -> str:
        return "REST inference"

    def metadata_value(self, name: str) -> str | None:
        return self._call.header(name)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        self._call.on_cancel(callback)

    def set_trailing_metadata(self, trailing_metadata: Metadata, own: OwnMetadatum | None = None) -> None:
        self._trailers = trailing_metadata
        self._own = own

    def accept(self, signature: Signature, reply: Reply) -> None:
        check_form(self._form, reply)

    def write(self, call: Call, signature: Signature, reply: Reply, max_bytes: int) -> None:
        if self._form.predictions:
            self._body = write_predictions(call, reply, max_bytes=max_bytes)
        else:
            self._body = write_reply(call, signature, reply, self._form, max_bytes=max_bytes)

    def answer(self, message: bytes) -> None:
        body, own = self._body, self._own_fields()
        as_json, binary, _ = _fields_of(self._trailers)
        if body.json_size < 0:
            respond_coded(self._call, as_json, body.pieces, own)
        else:
            own = ((b"inference-header-content-length", b"%d" % body.json_size), *own)
            respond_coded(self._call, binary, body.pieces, own)

    def fail(self, error: GatewayError) -> None:
        self._call.fail(error, (*_fields_of(self._trailers)[2], *self._own_fields()))

    def _own_fields(self) -> Fields:
        own = self._own
        return ((own[0].encode(), own[1]),) if own is not None else ()


def _fields_of(trailers: Metadata) -> tuple[Fields, Fields, Fields]:
    """Returns the same fields for the same metadata, so that a transport encodes them once."""
    kept = _fields.get(trailers)
    if kept is None:
        if len(_fields) >= _REMEMBERED:
            _fields.clear()
        said = tuple((name.encode(), value.encode()) for name, value in trailers)
        kept = _fields[trailers] = ((_JSON, *said), (_BINARY, *said), said)
    return kept
