"""The servicers over grpcio's asyncio server: slower than the other transport, and everybody's reference."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from time import monotonic_ns
from typing import Any, NoReturn

import grpc

from gateway.access.principal import ANONYMOUS, Principal
from gateway.errors import DeadlineExceeded, GatewayError
from gateway.rpc.authorizer import Authorizer
from gateway.rpc.handler import EOF, CancelCallback, GenericHandler, Metadata, OwnMetadatum, RpcHandler
from gateway.rpc.handshake_filter import duplicate, listening_descriptors, turn_away
from gateway.rpc.invocation import failure, invoke, requests
from gateway.rpc.message import BadMessage, ByteBudget
from gateway.rpc.method import Method, MethodTable
from gateway.rpc.peer_identity import certificate_names
from gateway.rpc.server import MAX_FIELDS, ServerOptions
from gateway.rpc.server_certificate import Material, ServerCertificate, TlsFiles
from gateway.rpc.status_codes import Status, status_of

_log = logging.getLogger(__name__)

_STOP_WAIT_S = 5.0
_Adapted = Callable[[Any, Any], Coroutine[Any, Any, Any]]
_Run = Callable[[Method, Any, Any, Principal], Coroutine[Any, Any, bytes | None]]


def channel_arguments(options: ServerOptions) -> list[tuple[str, int]]:
    """Returns grpcio's arguments for our options.

    Without `http2.ping_timeout_ms` a peer that vanished stays connected far longer than the keepalive timeout says.
    """
    return [
        ("grpc.max_receive_message_length", options.max_receive_bytes),
        ("grpc.max_send_message_length", options.max_send_bytes),
        ("grpc.max_concurrent_streams", options.max_concurrent_streams),
        ("grpc.max_allowed_incoming_connections", options.max_connections),
        ("grpc.max_metadata_size", options.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", 2 * options.max_metadata_bytes),
        ("grpc.server_handshake_timeout_ms", _ms(options.handshake_timeout_s)),
        ("grpc.max_connection_idle_ms", _ms(options.idle_timeout_s)),
        ("grpc.max_connection_age_ms", _ms(options.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _ms(options.age_grace_s)),
        ("grpc.keepalive_time_ms", _ms(options.keepalive_time_s)),
        ("grpc.keepalive_timeout_ms", _ms(options.keepalive_timeout_s)),
        ("grpc.http2.ping_timeout_ms", _ms(options.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(options.min_ping_interval_s)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(options.min_ping_interval_s)),
        ("grpc.http2.max_ping_strikes", options.max_ping_strikes),
        # Identity, deflate and gzip.
        ("grpc.compression_enabled_algorithms_bitset", 0b111),
        ("grpc.so_reuseport", int(options.reuse_port)),
    ]


def _ms(seconds: float) -> int:
    return max(1, min(round(seconds * 1000), 2**31 - 1))


class _Context:
    """grpcio's context with decoded messages, a known method and the server's own deadline."""

    def __init__(self, inner: Any, method: Method, deadline_ns: int, principal: Principal) -> None:
        self._inner = inner
        self._method = method
        self.deadline_ns = deadline_ns
        self.principal = principal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def read(self) -> object:
        message = await self._inner.read()
        return message if message is EOF else self._method.decode(message)

    async def write(self, message: object) -> None:
        await self._inner.write(self._method.encode(message))

    def time_remaining(self) -> float | None:
        return (self.deadline_ns - monotonic_ns()) / 1e9 if self.deadline_ns else None


class _CallbackContext(_Context):
    """A call that is answered by callback, while the Task that grpcio gave it waits."""

    def __init__(
        self, inner: Any, method: Method, deadline_ns: int, principal: Principal, *, message_size: int
    ) -> None:
        super().__init__(inner, method, deadline_ns, principal)
        self.message_size = message_size
        self.answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._on_cancel: list[CancelCallback] = []

    def answer(self, message: object) -> None:
        if not self.answered.done():
            self._on_cancel.clear()
            self.answered.set_result(message)

    def fail(self, error: GatewayError) -> None:
        if not self.answered.done():
            self._on_cancel.clear()
            self.answered.set_exception(error)

    def on_cancel(self, callback: CancelCallback) -> None:
        if self.answered.cancelled():
            callback()
        elif not self.answered.done():
            self._on_cancel.append(callback)

    def abandon(self) -> None:
        """Tells whoever works on the answer, once, that nobody waits for it any more."""
        self.answered.cancel()
        callbacks, self._on_cancel = self._on_cancel, []
        for callback in callbacks:
            callback()

    def metadata_value(self, name: str) -> str | None:
        for key, value in self._inner.invocation_metadata():
            if key == name:
                return value if isinstance(value, str) else value.decode("latin-1")
        return None

    def set_trailing_metadata(self, trailing_metadata: Metadata, own: OwnMetadatum | None = None) -> None:
        # grpcio takes bytes only where the key ends with -bin.
        more = ((own[0], own[1].decode("ascii")),) if own is not None else ()
        self._inner.set_trailing_metadata((*trailing_metadata, *more))


class GrpcioServer:
    """A `gateway.rpc.server.Server` on grpc.aio. It must be made inside the event loop that it will serve on."""

    def __init__(self, options: ServerOptions, authorizer: Authorizer | None = None) -> None:
        self._options = options
        self._methods = MethodTable()
        self._port = 0
        self._listening: set[int] = set()  # descriptors, which grpcio owns
        self._certificate: ServerCertificate | None = None
        self._following: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._received = ByteBudget(options.max_inflight_bytes)
        self._unsent = ByteBudget(options.max_inflight_bytes)
        self._server = grpc.aio.server(
            options=channel_arguments(options), maximum_concurrent_rpcs=options.max_concurrent_calls
        )
        self._server.add_generic_rpc_handlers((_Adapter(self, self._methods, authorizer, options.tls),))

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[GenericHandler]) -> None:
        self._methods.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, RpcHandler]) -> None:
        self._methods.register(service_name, method_handlers)

    def paths(self) -> Iterable[str]:
        return self._methods.registered()

    async def start(self) -> None:
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        address = f"{host}:{self._options.port}"
        before = listening_descriptors()
        if self._options.tls is None:
            self._port = self._server.add_insecure_port(address)
        else:
            certificate = self._certificate = ServerCertificate(self._options.tls)
            self._port = self._server.add_secure_port(address, _credentials(certificate))
            self._following = asyncio.create_task(self._follow(certificate), name="rpc certificate")
        self._listening = listening_descriptors() - before
        await self._server.start()

    async def _turn_away(self) -> None:
        sockets = [one for one in map(duplicate, self._listening) if one is not None]
        try:
            await turn_away(sockets)
        finally:
            for one in sockets:
                one.close()  # grpcio closes its own

    async def _follow(self, certificate: ServerCertificate) -> None:
        async for _ in certificate.renewals(self._options.tls_look_s):
            pass  # grpcio asks for it at each handshake

    async def stop(self, grace_s: float | None) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))
        if grace_s and self._options.reuse_port:
            await self._turn_away()
        await self._server.stop(grace_s)
        # grpcio returns before the clean-up of the handlers that it cancelled has run.
        if self._running:
            _, stuck = await asyncio.wait(self._running, timeout=_STOP_WAIT_S)
            if stuck:
                _log.warning("%d handlers did not end within %s s of their cancellation", len(stuck), _STOP_WAIT_S)

    @property
    def port(self) -> int:
        return self._port

    @property
    def certificate(self) -> ServerCertificate | None:
        return self._certificate

    def adapt(self, method: Method, principal: Principal) -> _Adapted:
        """Returns the handler of a method for a caller who is known from the request's head."""
        run = self._runner(method)

        async def adapted(request: Any, inner: Any) -> Any:
            return await run(method, request, inner, principal)

        return adapted

    def adapt_to_certificate(self, method: Method, authorizer: Authorizer) -> _Adapted:
        """Returns a handler that finds out who calls: grpcio tells certificates to handlers only.

        It takes the request as a stream: grpcio would read the message of any other kind of handler first.
        """
        run = self._runner(method)

        async def adapted(request: Any, inner: Any) -> Any:
            try:
                names = certificate_names(inner.auth_context())
                principal = authorizer.authorize(method.path.encode(), None, names)
            except GatewayError as error:
                await _abort(inner, error, method.path)
            message = request if method.request_streaming else await inner.read()
            if message is EOF:
                await _abort(inner, BadMessage("a unary call ended without a whole message"), method.path)
            return await run(method, message, inner, principal)

        return adapted

    def _runner(self, method: Method) -> "_Run":
        run: _Run
        if method.by_callback:
            run = self._call_back
        elif method.request_streaming:
            run = self._stream
        else:
            run = self._call
        return run

    async def _call_back(self, method: Method, message: bytes, inner: Any, principal: Principal) -> bytes | None:
        deadline_ns = self._deadline_ns(inner, method)
        context = _CallbackContext(inner, method, deadline_ns, principal, message_size=len(message))
        async with self._boundary(context, method, inner):
            try:
                _hold(self._received, len(message), "a message", inner)
                method.call(message, context)
                return self._sent(method.encode(await context.answered), inner)
            except BaseException:
                context.abandon()
                raise
        return None

    async def _call(self, method: Method, message: bytes, inner: Any, principal: Principal) -> bytes | None:
        context = _Context(inner, method, self._deadline_ns(inner, method), principal)
        async with self._boundary(context, method, inner):
            _hold(self._received, len(message), "a message", inner)
            return self._encoded(method, inner, await invoke(method, method.decode(message), context))
        return None

    async def _stream(self, method: Method, _: object, inner: Any, principal: Principal) -> bytes | None:
        context = _Context(inner, method, self._deadline_ns(inner, method), principal)
        async with self._boundary(context, method, inner):
            return self._encoded(method, inner, await invoke(method, requests(context), context))
        return None

    def _encoded(self, method: Method, inner: Any, answer: object) -> bytes | None:
        if method.response_streaming:
            return None
        if answer is None and inner.code() not in (None, 0, grpc.StatusCode.OK):
            return b""  # the handler set a code and returned nothing
        return self._sent(method.encode(answer), inner)

    def _sent(self, answer: bytes, inner: Any) -> bytes:
        """Counts the answer for as long as the client has not read it."""
        _hold(self._unsent, len(answer), "an answer", inner)
        return answer

    def _deadline_ns(self, inner: Any, method: Method) -> int:
        remaining_s = inner.time_remaining()
        if remaining_s is None:
            if method.request_streaming or method.response_streaming:
                return 0
            options = self._options
            remaining_s = options.default_deadline_s if method.by_callback else options.default_task_deadline_s
        return monotonic_ns() + int(remaining_s * 1e9)

    @asynccontextmanager
    async def _boundary(self, context: _Context, method: Method, inner: Any) -> AsyncIterator[None]:
        """Turns a handler's exceptions into a status, and ends its time."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        remaining_s = context.time_remaining()
        limit = asyncio.timeout(remaining_s)
        try:
            if remaining_s is not None and remaining_s <= 0:
                raise DeadlineExceeded("deadline exceeded before the call began")
            async with limit:
                yield
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            expired = isinstance(error, TimeoutError) and limit.expired()
            status = _EXPIRED if expired else failure(error, method, inner)
            said = (*(inner.trailing_metadata() or ()), *status.metadata)
            await inner.abort(status.code, status.details, said)
        finally:
            self._running.discard(task)


_EXPIRED = Status(*status_of(DeadlineExceeded("deadline exceeded"), ""))


def _hold(budget: ByteBudget, count: int, what: str, inner: Any) -> None:
    """Takes bytes from the budget until the call is done.

    Raises: ResourceExhausted, with nothing taken.
    """
    budget.take(count, what)
    inner.add_done_callback(lambda _: budget.give(count))


class _Adapter(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Gives grpcio the adapted handler of each method, with messages left as bytes, or one that refuses the caller."""

    def __init__(
        self, server: GrpcioServer, methods: MethodTable, authorizer: Authorizer | None, tls: TlsFiles | None
    ) -> None:
        self._server = server
        self._methods = methods
        self._authorizer = authorizer
        self._certificates = tls is not None and tls.client_ca is not None

    def service(self, handler_call_details: Any) -> "RpcHandler | None":
        metadata = tuple(handler_call_details.invocation_metadata or ())
        if len(metadata) > MAX_FIELDS:
            return grpc.stream_stream_rpc_method_handler(_refuse_fields)
        method = self._methods.find(handler_call_details.method, metadata)
        if method is None:
            return None
        if self._authorizer is None:
            return _handler(method, self._server.adapt(method, ANONYMOUS))
        authorization = next((value for key, value in reversed(metadata) if key == "authorization"), None)
        if authorization is None and self._certificates:
            adapted = self._server.adapt_to_certificate(method, self._authorizer)
            return _handler(method, adapted, request_streaming=True)
        raw = authorization.encode() if isinstance(authorization, str) else authorization
        try:
            principal = self._authorizer.authorize(method.path.encode(), raw, ())
        except GatewayError as error:
            return grpc.stream_stream_rpc_method_handler(_refusing(error, method.path))
        return _handler(method, self._server.adapt(method, principal))


def _handler(method: Method, adapted: _Adapted, *, request_streaming: bool = False) -> "RpcHandler":
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.request_streaming or request_streaming, method.response_streaming]
    return make(adapted)


def _refusing(error: GatewayError, path: str) -> _Adapted:
    """Returns a handler that answers with the error; as one of a stream it reads no message."""

    async def refuse(_: Any, inner: Any) -> None:
        await _abort(inner, error, path)

    return refuse


async def _abort(inner: Any, error: GatewayError, path: str) -> NoReturn:
    status = status_of(error, path)
    await inner.abort(status.code, status.details, status.metadata)
    raise AssertionError("abort raises")


async def _refuse_fields(_: Any, context: Any) -> None:
    count = len(context.invocation_metadata())
    text = f"metadata of {count} fields, at most {MAX_FIELDS} are accepted"
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def _credentials(certificate: ServerCertificate) -> grpc.ServerCredentials:
    """Returns credentials that show at each handshake what it is then."""
    first = certificate.material
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        lambda: _configuration(certificate.material),
        require_client_authentication=first.client_ca is not None,
    )


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.client_ca)
