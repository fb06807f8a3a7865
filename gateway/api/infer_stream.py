"""ModelStreamInfer: many exchanges on one stream.

1. Each request goes the way of a unary one: its own decision, its own batch, its own answer.
2. The requests for one model are answered in the order in which they came, errors among them, as Triton does for
   models that are not decoupled: an answer that is ready early waits for those before it. Models do not wait for each
   other. Every answer and error echoes its request's id.
3. At most `limit` requests of a stream are unanswered or unsent; beyond that the stream is not read, so a client that
   does not read its answers is held back by HTTP/2 flow control.
4. An error is an answer with `error_message`, and the stream goes on; with metadata `triton_grpc_error: true` it ends
   the stream with its status.

Source: Triton's decoupled (streaming) extension.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from time import monotonic_ns
from typing import Protocol, cast

from gateway.access.principal import Principal
from gateway.access.quota_pass import QuotaPass
from gateway.access.quotas import Quotas
from gateway.api.answer_metadata import Metadata
from gateway.api.exchange import Exchanges
from gateway.api.varint import varint
from gateway.api.wire import parse
from gateway.errors import GatewayError
from gateway.pb import inference_pb2 as pb
from gateway.rpc.handler import Metadata as AnyMetadata
from gateway.rpc.handler import OwnMetadatum

MAX_IN_FLIGHT = 64
_GRPC_ERRORS = "triton_grpc_error"
_FINAL = "triton_final_response"
_CODE = "x-gateway-code"
_INFER_RESPONSE_TAG = b"\x12"  # field 2, length-delimited
_REMEMBERED_PARAMETERS = 1024


class StreamContext(Protocol):
    """Is what a stream needs of grpc's context, and who calls."""

    @property
    def principal(self) -> Principal: ...

    def invocation_metadata(self) -> "tuple[tuple[str, str | bytes], ...]": ...

    def time_remaining(self) -> float | None: ...


class Streams:
    """Serves streams, and keeps what their answers have in common."""

    def __init__(self, exchanges: Exchanges, *, limit: int = MAX_IN_FLIGHT, quotas: Quotas | None = None) -> None:
        self._exchanges = exchanges
        self._quotas = quotas
        self._limit = limit
        self._parameters: dict[Metadata, bytes] = {}

    async def serve(self, requests: AsyncIterator[bytes | memoryview], context: StreamContext) -> AsyncIterator[bytes]:
        """Yields the answers, each a serialized ModelStreamInferResponse.

        Raises: GatewayError (of a request, if the client asked for errors as status).
        """
        stream = Stream(self._exchanges, context, limit=self._limit, describe=self.describe, quotas=self._quotas)
        reader = asyncio.create_task(stream.read(requests))
        try:
            while (answer := await stream.next_answer()) is not None:
                yield answer
            await reader
        finally:
            reader.cancel()
            stream.abandon()
            await asyncio.gather(reader, return_exceptions=True)

    def describe(self, trailers: Metadata) -> bytes:
        """Returns the parameters of a streamed answer, serialized: a stream has trailing metadata only once."""
        described = self._parameters.get(trailers)
        if described is None:
            if len(self._parameters) >= _REMEMBERED_PARAMETERS:
                self._parameters.clear()
            described = self._parameters[trailers] = _with_parameters(
                pb.ModelInferResponse(), trailers
            ).SerializeToString()
        return described


class Stream:
    """Holds one stream's requests in flight and its answers not yet sent."""

    def __init__(
        self, exchanges: Exchanges, context: StreamContext, *, limit: int, describe: Callable[[Metadata], bytes],
        quotas: Quotas | None,
    ) -> None:  # fmt: skip
        self._exchanges = exchanges
        self._quotas = quotas
        self._context = context
        self._metadata = _text_metadata(context)
        self._as_status = self._metadata.get(_GRPC_ERRORS, "").lower() == "true"
        remaining_s = context.time_remaining()
        self.deadline_ns = 0 if remaining_s is None else monotonic_ns() + int(remaining_s * 1e9)
        self.describe = describe
        self._slots = asyncio.Semaphore(limit)
        self._answers: deque[bytes | GatewayError] = deque()  # that may be sent
        self._arrived = asyncio.Event()
        self._unsent: dict[str, deque[StreamCaller]] = {}  # by model, in the order in which they came
        self._reading = True

    async def read(self, requests: AsyncIterator[bytes | memoryview]) -> None:
        """Opens every request of the stream.

        Raises: InvalidArgument (a message that is none).
        """
        try:
            async for message in requests:
                await self._slots.acquire()
                request, raw, packed = parse(message)
                caller = StreamCaller(self, request, len(message))
                self._unsent.setdefault(request.model_name, deque()).append(caller)
                if self._quotas is not None:
                    try:
                        caller.quota_pass = self._quotas.enter(self.principal.name, self.principal.tenant)
                    except GatewayError as error:
                        caller.fail(error)
                        continue
                self._exchanges.open(request, raw, packed, caller)
        finally:
            self._reading = False
            self._arrived.set()

    async def next_answer(self) -> bytes | None:
        """Returns the next answer, or None when the client has half-closed and every request was answered.

        Raises: GatewayError (errors were asked for as status).
        """
        while not self._answers:
            if not self._reading and not self._unsent:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        answer = self._answers.popleft()
        self._slots.release()
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    @property
    def principal(self) -> Principal:
        """Returns who calls, as the last message proved it."""
        return self._context.principal

    def metadata_value(self, name: str) -> str | None:
        """Returns the first value of a metadata field of the stream."""
        return self._metadata.get(name)

    def answer(self, caller: "StreamCaller", answer: bytes) -> None:
        """Sends the answer to one request as soon as those before it are answered."""
        caller.outcome = answer
        self._release(caller.model)

    def refuse(self, caller: "StreamCaller", error: GatewayError, refusal: bytes) -> None:
        """Sends the error of one request in its turn, in the form that the client asked for."""
        caller.outcome = error if self._as_status else refusal
        self._release(caller.model)

    def abandon(self) -> None:
        """Cancels what is in flight: nobody waits for the answers any more."""
        for caller in [caller for callers in self._unsent.values() for caller in callers if caller.outcome is None]:
            caller.cancel()

    def _release(self, model: str) -> None:
        """Releases the answers at the head of the model's requests for sending."""
        callers = self._unsent[model]
        while callers and (outcome := callers[0].outcome) is not None:
            callers.popleft()
            self._answers.append(outcome)
            self._arrived.set()
        if not callers:
            del self._unsent[model]


class StreamCaller:
    """The caller of one exchange of a stream."""

    __slots__ = (
        "_cancel",
        "_own",
        "_request",
        "_stream",
        "_trailers",
        "deadline_ns",
        "message_size",
        "model",
        "outcome",
        "principal",
        "quota_pass",
    )

    def __init__(self, stream: Stream, request: pb.ModelInferRequest, message_size: int) -> None:
        self._stream = stream
        self.model = request.model_name
        self.outcome: bytes | GatewayError | None = None
        # Kept for errors only: an exchange's answer carries its own names and id.
        self._request = pb.ModelInferResponse(model_name=request.model_name[:128], id=request.id[:256])
        self._cancel: Callable[[], None] | None = None
        self._trailers: Metadata = ()
        self._own: OwnMetadatum | None = None
        self.deadline_ns = stream.deadline_ns
        self.principal = stream.principal
        self.quota_pass: QuotaPass | None = None
        self.message_size = message_size

    def answer(self, message: bytes) -> None:
        parameters = self._stream.describe(self._trailers)
        if self._own is not None:
            own = ((self._own[0], self._own[1].decode("ascii")),)
            parameters += _parameters(pb.ModelInferResponse(), own).SerializeToString()
        # Serialized messages joined are those messages merged.
        size = varint(len(message) + len(parameters))
        if self.quota_pass is not None:
            self.quota_pass.release()
        self._stream.answer(self, b"".join((_INFER_RESPONSE_TAG, size, message, parameters)))

    def fail(self, error: GatewayError) -> None:
        own = ((self._own[0], self._own[1].decode("ascii")),) if self._own is not None else ()
        if self.quota_pass is not None:
            self.quota_pass.release()
        response = _with_parameters(self._request, (*self._trailers, *own, (_CODE, error.code.name)))
        refusal = pb.ModelStreamInferResponse(error_message=str(error), infer_response=response)
        self._stream.refuse(self, error, refusal.SerializeToString())

    def on_cancel(self, callback: Callable[[], None]) -> None:
        self._cancel = callback

    def metadata_value(self, name: str) -> str | None:
        return self._stream.metadata_value(name)

    def set_trailing_metadata(self, trailing_metadata: AnyMetadata, own: OwnMetadatum | None = None) -> None:
        self._trailers = cast(Metadata, trailing_metadata)  # the load, which is bytes, is not told in a stream
        self._own = own

    def cancel(self) -> None:
        """Tells the exchange that nobody waits for it."""
        if self._cancel is not None:
            self._cancel()


def _with_parameters(response: pb.ModelInferResponse, trailers: Metadata) -> pb.ModelInferResponse:
    response.parameters[_FINAL].bool_param = True
    return _parameters(response, trailers)


def _parameters(response: pb.ModelInferResponse, metadata: Metadata) -> pb.ModelInferResponse:
    for name, value in metadata:
        response.parameters[name].string_param = value
    return response


def _text_metadata(context: StreamContext) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        values.setdefault(name, value.decode("latin-1") if isinstance(value, bytes) else value)
    return values
