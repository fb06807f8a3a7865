"""One inference exchange: a request message in, an answer or an error out, by callback and without a Task.

The unary method and the stream share it; they differ only in the `Caller` that is given the outcome.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from time import monotonic_ns
from typing import Final, TypeVar, cast

from gateway.access.permissions import RPCS
from gateway.access.principal import ANONYMOUS
from gateway.access.quotas import Quotas
from gateway.api.answer_metadata import REQUEST_ID, TOKEN, AnswerMetadata, id_bytes
from gateway.api.caller import Applicant, Caller, ForeignCaller
from gateway.api.edge_call import Exchange, fail_unread, read_unless_answered, takes_long
from gateway.api.encode import encode
from gateway.api.feedback_token import Tokens
from gateway.api.load_reports import LoadReports
from gateway.api.parameters import refuses_cache, timeout_ns
from gateway.api.signature import Signatures
from gateway.api.stale_calls import StaleCalls
from gateway.api.template import Query, Templates, decode_query, read_query
from gateway.api.unread_tensor import LEAST_MESSAGE_BYTES, LONG_BYTES, Input, is_unread
from gateway.api.wire import Packed, Raw, leading_names, parse
from gateway.errors import Cancelled, Code, DeadlineExceeded, GatewayError, Internal, ResourceExhausted
from gateway.pb import inference_pb2 as pb
from gateway.routing.document.source import METHODS
from gateway.rpc.handler import Metadata as AnyMetadata
from gateway.serving.arrivals import Arrival
from gateway.serving.call import UNCACHED, Call, log_fields
from gateway.serving.engine import Engine
from gateway.serving.tracer import TRACEPARENT, TRACESTATE
from gateway.serving.version import Version
from gateway.tensor import Buffer
from gateway.threads import started_threads

logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")
_SPANS: Final = tuple(f"inference.GRPCInferenceService/{method}" for method in METHODS)  # what traces call them
_LEAD_BYTES: Final = 512  # of a message: more than the longest name of a model takes
_OK: Final = Code.OK
_ROLES: Final = RPCS["/inference.GRPCInferenceService/ModelInfer"].roles  # the same for the stream


class Exchanges:
    """Carries exchanges through the engine. It is made on the event loop that it serves on.

    With `tokens` every answer carries a feedback token, with `load_reports` those to unary requests over gRPC the
    worker's load.

    Units:  `default_timeout_s` bounds a request whose caller has no deadline.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_answer_bytes: int,
        default_timeout_s: float,
        tokens: Tokens | None = None,
        quotas: Quotas | None = None,
        load_reports: LoadReports | None = None,
    ) -> None:
        self._engine = engine
        self.load_reports = load_reports
        self._quotas = quotas
        self._max_answer_bytes = max_answer_bytes
        self._default_ns = int(default_timeout_s * 1e9)
        self._signatures = Signatures()
        self._templates = Templates()
        self._metadata = AnswerMetadata(tokens)
        self._loop = asyncio.get_running_loop()
        self._stale_calls = StaleCalls(self._loop, self._expire)
        self._aside = started_threads(1, "codec")  # for what takes too long on the loop
        self._back_pressure = engine.back_pressure
        self._tracer = engine.tracer

    def infer(self, message: bytes | memoryview, caller: Caller) -> None:
        """Answers a unary request: its caller is given the outcome exactly once, now or later."""
        learned = self._templates.find(message)
        if learned is not None:
            query, request_id, raw = learned
            self._begin(query, request_id, raw, caller, None, True)
            return
        try:
            if len(message) > LONG_BYTES:
                model, _ = leading_names(bytes(message[:_LEAD_BYTES]))
                if model:
                    self.enter(model, caller, caller.message_size)
            request, raw, packed = parse(message)
        except GatewayError as error:
            caller.fail(error)
            return
        try:
            query, request_id = read_query(request, raw, packed, streamed=False)
        except GatewayError as error:
            fail_unread(request, error, caller)
            return
        if self._begin(query, request_id, raw, caller, None, True):
            self._templates.learn(message, query)

    def announced(self, caller: Applicant, size_bytes: int, lead: bytes) -> Arrival | None:
        """Refuses a message that would be refused when it is whole, by its length and the model that it begins with.

        Returns the call on its way, if it is known who serves it.
        Raises: PermissionDenied, ResourceExhausted, Unavailable.
        """
        model, version = leading_names(lead)
        return self.foresee(model, version, caller, size_bytes) if model else None

    def foresee(self, model: str, version: str, caller: Applicant, size_bytes: int) -> Arrival | None:
        """Refuses a request of that length that would be refused when it is whole.

        Returns the request on its way, if it is known who serves it.
        Raises: PermissionDenied, ResourceExhausted, Unavailable.
        """
        try:
            self.enter(model, caller, size_bytes)
            return self._engine.foresight.foresee(model, version, size_bytes, caller.deadline_ns)
        except GatewayError as error:
            if self.load_reports is not None:  # who balances by errors would take a full worker for a free one
                self.load_reports.count(error.code)
            raise

    def enter(self, model: str, caller: Applicant, size_bytes: int) -> None:
        """Asks roles and quotas for a request that is still to be read: to refuse it costs less than to read it.

        Raises: PermissionDenied, ResourceExhausted.
        """
        if caller.principal is not ANONYMOUS:
            caller.principal.check(_ROLES, model)
        if caller.quota_pass is not None:
            caller.quota_pass.enter_model(model, size_bytes)

    def aside(self, work: Callable[[], _Made], told: "Callable[[Future[_Made]], None]") -> None:
        """Has the work done on a thread, as it takes too long on the loop; `told` is given its outcome on the loop."""
        self._aside.submit(work).add_done_callback(lambda made: self._loop.call_soon_threadsafe(told, made))

    def open(self, request: pb.ModelInferRequest, raw: Raw, packed: Packed, caller: Caller) -> None:
        """Answers a streamed request: its caller is given the outcome exactly once, now or later."""
        try:
            query, request_id = read_query(request, raw, packed, streamed=True)
        except GatewayError as error:
            fail_unread(request, error, caller)
            return
        self._begin(query, request_id, raw, caller, None, False)

    def begin(self, query: Query, request_id: str, raw: Raw, caller: ForeignCaller, reports_load: bool = False) -> bool:
        """Answers a request that was read elsewhere: its caller is given the outcome exactly once, now or later.

        With `reports_load` its trailers tell the worker's load, where that is told. Returns whether it was submitted,
        so that its like need not be checked again.
        """
        return self._begin(query, request_id, raw, caller, caller, reports_load)

    def _begin(
        self,
        query: Query,
        request_id: str,
        raw: Raw,
        caller: Caller,
        foreign: ForeignCaller | None,
        reports_load: bool,
    ) -> bool:
        """Submits the request and returns True, or answers it and returns False."""
        exchange = Exchange(
            query.model,
            query.version,
            request_id,
            self,
            deadline_ns=caller.deadline_ns,
            size_bytes=caller.message_size,
        )
        exchange.caller = caller
        exchange.foreign = foreign
        exchange.reports_load = reports_load
        exchange.query = query
        exchange.parameters = query.parameters
        exchange.streamed = query.streamed
        exchange.raw = raw
        if self._tracer is not None:
            self._trace(exchange, caller, query)
        try:
            # As a rule the transport keeps the deadline, and it has not passed.
            own_deadline = exchange.deadline_ns <= exchange.received_ns and self._limit(exchange)
            if query.parameters:
                exchange.queue_limit_ns = timeout_ns(query.parameters)
                if refuses_cache(query.parameters):
                    exchange.cache_key = UNCACHED
            if caller.principal is not ANONYMOUS:
                caller.principal.check(_ROLES, query.model)
            if self._quotas is not None:
                self._admit(exchange, caller, query)
            refusal = self._engine.enter(exchange, exchange)
        except GatewayError as error:
            self._refuse(exchange, error)
            return False
        if refusal is not None:
            self._refuse(exchange, refusal)
            return False
        try:
            signature = exchange.signature = self._signatures.of(cast(Version, exchange.version))
            inputs, exchange.shapes, exchange.rows, exchange.reply = decode_query(query, raw, signature)
            exchange.wanted = exchange.reply.wanted
            if foreign is not None:
                foreign.accept(signature, exchange.reply)
        except GatewayError as error:
            exchange.fail(error)
            return False
        except Exception:
            # The boundary of a request: a defect of ours must not keep the lease and the permit.
            exchange.fail(self._defect("decoding request", exchange))
            return False
        del exchange.query, exchange.raw
        if own_deadline:
            self._stale_calls.watch(exchange)
        caller.on_cancel(partial(self._abandon, exchange))
        if exchange.size_bytes >= LEAST_MESSAGE_BYTES and is_unread(inputs):
            self._read_aside(exchange, inputs)
            return False
        exchange.inputs = cast("Sequence[Buffer | None]", inputs)
        self._engine.submit(exchange)
        return True

    def _refuse(self, exchange: Exchange, error: GatewayError) -> None:
        """Tells the caller why the request was not begun."""
        caller, code, named = exchange.caller, error.code, self._engine.name(exchange)
        caller.set_trailing_metadata(self._reported((), exchange, code), (REQUEST_ID, id_bytes(named)))
        caller.fail(error)
        if exchange.trace is not None and self._tracer is not None:
            self._tracer.finish(exchange, code, named)

    def _read_aside(self, exchange: Exchange, inputs: Sequence[Input]) -> None:
        """Has the inputs made on the thread, and submits the request then."""
        self.aside(partial(read_unless_answered, exchange, inputs), partial(self._was_read, exchange))

    def _was_read(self, exchange: Exchange, reading: "Future[list[Buffer | None]]") -> None:
        if exchange.answered:
            return  # it was cancelled, or its deadline has passed
        try:
            exchange.inputs = reading.result()
        except GatewayError as error:
            exchange.fail(error)
        except Exception:
            # The boundary of a request, as in `_begin`.
            exchange.fail(self._defect("decoding request", exchange))
        else:
            self._engine.submit(exchange)

    def _defect(self, doing: str, exchange: Exchange) -> Internal:
        """Logs the exception that is being handled, a defect of ours, and returns the error that hides it."""
        named = self._engine.name(exchange)
        logger.exception("%s %r failed", doing, named, extra={"said": log_fields(exchange, named)})
        return Internal(named)

    def _trace(self, exchange: Exchange, caller: Caller, query: Query) -> None:
        """Gives the request its trace, where it is sampled."""
        tracer = self._tracer
        trace = tracer.begin(caller.metadata_value(TRACEPARENT)) if tracer is not None else None
        if trace is None:
            return
        foreign = exchange.foreign
        trace.method = _SPANS[query.streamed] if foreign is None else foreign.protocol
        if trace.parent_id:
            trace.state = caller.metadata_value(TRACESTATE) or ""
        exchange.trace = trace

    def _admit(self, exchange: Exchange, caller: Caller, query: Query) -> None:
        """Lets the request in by the quotas of its model and by its bytes, and gives it its priority class.

        Raises: ResourceExhausted.
        """
        quota_pass = caller.quota_pass
        if quota_pass is not None:
            quota_pass.enter_model(query.model, exchange.size_bytes)
            exchange.level = quota_pass.priority_of(query.model, query.parameters.get("priority"))

    def _limit(self, exchange: Exchange) -> bool:
        """Gives a request without a deadline the default one, which no transport keeps; returns whether it did.

        Raises: DeadlineExceeded (the caller's has passed).
        """
        deadline_ns = exchange.deadline_ns
        if deadline_ns and deadline_ns <= exchange.received_ns:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        if deadline_ns:
            return False
        exchange.deadline_ns = exchange.received_ns + self._default_ns
        return True

    def submitted(self, call: Call) -> None:
        pass

    def withdrawn(self, call: Call) -> None:
        pass

    def answered(self, call: Call) -> None:
        """Gives the caller the outcome; an answer waits for room in the log first, where it has to."""
        if self._back_pressure is not None and call.error is None and self._back_pressure.full:
            self._back_pressure.hold(partial(self._resume, call))
        else:
            self._complete(call)

    def _resume(self, call: Call, granted: bool) -> None:
        if not granted and self._back_pressure is not None and self._back_pressure.refuses:
            call.error = ResourceExhausted("the prediction log has no room for the record of this request")
            call.outputs = ()
        self._complete(call)

    def _complete(self, call: Call) -> None:
        exchange = cast(Exchange, call)
        error = exchange.error
        answer = b""
        if error is None:
            try:
                if exchange.signature.config is not cast(Version, exchange.version).config:
                    self._readdress(exchange)
                if not exchange.request_id:
                    self._engine.name(exchange)  # the answer tells the id under which the request is logged
                if takes_long(exchange):
                    self.aside(partial(self._write, exchange), partial(self._was_written, exchange))
                    return
                answer = self._write(exchange)
            except GatewayError as refused:
                error = refused
            except Exception:
                # The boundary again: the other calls of the batch must not suffer.
                error = self._defect("encoding the answer to request", exchange)
        self._finish(exchange, answer, error)

    def _write(self, exchange: Exchange) -> bytes:
        """Returns the answer, nothing where the caller keeps it. Raises: GatewayError."""
        foreign = exchange.foreign
        if foreign is None:
            return encode(exchange, exchange.signature, exchange.reply, max_bytes=self._max_answer_bytes)
        foreign.write(exchange, exchange.signature, exchange.reply, self._max_answer_bytes)
        return b""

    def _was_written(self, exchange: Exchange, writing: "Future[bytes]") -> None:
        answer, error = b"", None
        try:
            answer = writing.result()
        except GatewayError as refused:
            error = refused
        except Exception:
            # The boundary of a request, as in `_complete`.
            error = self._defect("encoding the answer to request", exchange)
        self._finish(exchange, answer, error)

    def _finish(self, exchange: Exchange, answer: bytes, error: GatewayError | None) -> None:
        """Gives the caller the outcome, and counts it."""
        caller = exchange.caller
        kept, stamp = self._metadata.of(exchange, caller.principal)
        trailers = self._reported(kept, exchange, _OK if error is None else error.code)
        if error is not None:
            caller.set_trailing_metadata(trailers, (REQUEST_ID, id_bytes(self._engine.name(exchange))))
        elif trailers:
            own = (TOKEN, stamp.mint(self._engine.name(exchange))) if stamp is not None else None
            caller.set_trailing_metadata(trailers, own)
        if error is None:
            caller.answer(answer)
            code = _OK
        else:
            caller.fail(error)
            code = error.code
        self._stale_calls.forget(exchange)
        if exchange.trace is not None and self._tracer is not None:
            self._tracer.finish(exchange, code, self._engine.name(exchange))
        self._engine.finish(exchange, code)

    def _reported(self, trailers: AnyMetadata, exchange: Exchange, code: Code) -> AnyMetadata:
        """Counts an outcome, and returns its trailers with the worker's load, where that is told."""
        load_reports = self.load_reports
        if load_reports is None:
            return trailers
        load_reports.count(code)
        return load_reports.with_report(trailers) if exchange.reports_load else trailers

    def _readdress(self, exchange: Exchange) -> None:
        """Makes the answer that of the version that gave it, which is not the one that the call was decoded for."""
        reply = exchange.reply
        signature = exchange.signature = self._signatures.of(cast(Version, exchange.version))
        every = tuple(range(len(reply.specs)))
        exchange.reply = signature.reply(reply.wanted or every, reply.classes or (0,) * len(every), typed=reply.typed)

    def _abandon(self, exchange: Exchange) -> None:
        deadline_ns = exchange.deadline_ns
        if deadline_ns and monotonic_ns() >= deadline_ns:
            self._expire(exchange)
        else:
            self._engine.cancel(exchange, Cancelled("the caller cancelled the request"))

    def _expire(self, call: Call) -> None:
        self._engine.cancel(call, DeadlineExceeded("the deadline passed before the request was answered"))
