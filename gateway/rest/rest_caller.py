"""The caller of one inference request by REST: what routing reads of it, and how its outcome becomes an answer."""

from collections.abc import Callable
from typing import Final, cast

from gateway.access.principal import Principal
from gateway.access.quota_pass import QuotaPass
from gateway.api.answer_metadata import Metadata
from gateway.api.encode import are_long
from gateway.api.load_reports import HEADER, LoadReports
from gateway.api.signature import Reply, Signature
from gateway.errors import GatewayError
from gateway.rest.answer_coding import respond_coded
from gateway.rest.http_call import Fields
from gateway.rest.infer_reply import ReplyBody, ReplyForm, check_form, write_reply
from gateway.rest.prediction import write_predictions
from gateway.rest.rest_call import RestCall
from gateway.rpc.handler import Metadata as AnyMetadata
from gateway.rpc.handler import OwnMetadatum
from gateway.serving.call import Call

_JSON: Final = (b"content-type", b"application/json")
_BINARY: Final = (b"content-type", b"application/octet-stream")
_JSON_SIZE: Final = b"inference-header-content-length"
_NONE: Final = ReplyBody([], -1)
_REMEMBERED: Final = 4096
_REMEMBERED_SIZES: Final = 64


class AnswerFields:
    """The fields of answers that have the same trailing metadata: the same tuples, which a transport encodes once.

    `said` are the metadata, for errors.
    """

    __slots__ = ("_binary", "json", "said")

    def __init__(self, trailers: Metadata) -> None:
        self.said: Fields = tuple((name.encode(), value.encode()) for name, value in trailers)
        self.json: Fields = (_JSON, *self.said)
        self._binary: dict[int, Fields] = {}

    def binary(self, json_size: int) -> Fields:
        """Returns those of answers whose JSON has that size."""
        kept = self._binary.get(json_size)
        if kept is None:
            if len(self._binary) >= _REMEMBERED_SIZES:
                self._binary.clear()
            kept = self._binary[json_size] = (_BINARY, *self.said, (_JSON_SIZE, b"%d" % json_size))
        return kept


_fields: dict[Metadata, AnswerFields] = {}
_names: dict[str, bytes] = {}  # of fields that are a call's own; there are two


class RestCaller:
    """A `ForeignCaller` over one HTTP request. `event` are fields of a good answer alone.

    With `load_reports` the answer tells the worker's load, in the form that was asked for.
    """

    __slots__ = ("_body", "_call", "_event", "_form", "_load_form", "_load_reports", "_own", "_trailers")

    def __init__(
        self,
        call: RestCall,
        form: ReplyForm,
        event: Fields = (),
        load_reports: LoadReports | None = None,
        load_form: str = "",
    ) -> None:
        self._load_reports = load_reports
        self._load_form = load_form
        self._event = event
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

    def set_trailing_metadata(self, trailing_metadata: AnyMetadata, own: OwnMetadatum | None = None) -> None:
        self._trailers = cast(Metadata, trailing_metadata)  # the load, which is bytes, is told in a header
        self._own = own

    def accept(self, signature: Signature, reply: Reply) -> None:
        check_form(self._form, reply)

    def takes_long(self, call: Call, reply: Reply) -> bool:
        form = self._form
        return (form.predictions or not form.every or bool(form.outputs)) and are_long(call.outputs)

    def write(self, call: Call, signature: Signature, reply: Reply, max_bytes: int) -> None:
        if self._form.predictions:
            self._body = write_predictions(call, reply, max_bytes=max_bytes)
        else:
            self._body = write_reply(call, signature, reply, self._form, max_bytes=max_bytes)

    def answer(self, message: bytes) -> None:
        body, fields = self._body, _fields_of(self._trailers)
        respond_coded(
            self._call,
            fields.json if body.json_size < 0 else fields.binary(body.json_size),
            body.pieces,
            self._own_fields() if not self._event else (*self._event, *self._own_fields()),
        )

    def fail(self, error: GatewayError) -> None:
        self._call.fail(error, (*_fields_of(self._trailers).said, *self._own_fields()))

    def _own_fields(self) -> Fields:
        load = self._load_reports.header(self._load_form) if self._load_reports is not None else b""
        told: Fields = ((HEADER, load),) if load else ()
        own = self._own
        if own is None:
            return told
        name = _names.get(own[0])
        if name is None:
            name = _names[own[0]] = own[0].encode()
        return ((name, own[1]), *told) if told else ((name, own[1]),)


def _fields_of(trailers: Metadata) -> AnswerFields:
    kept = _fields.get(trailers)
    if kept is None:
        if len(_fields) >= _REMEMBERED:
            _fields.clear()
        kept = _fields[trailers] = AnswerFields(trailers)
    return kept
