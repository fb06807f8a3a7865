"""The servicers over grpcio's asyncio server: slower than the other transport, and everybody's reference."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from time import monotonic_ns
from typing import Any, Final

import grpc

from gateway.access.principal import ANONYMOUS
from gateway.access.quotas import Quotas
from gateway.errors import DeadlineExceeded
from gateway.rpc.adapted_call import Adapted, AdaptedCall, AdaptedCallbackCall
from gateway.rpc.authorizer import Authorizer, CallCredential
from gateway.rpc.channel_arguments import CALLS_BEYOND, channel_arguments
from gateway.rpc.handler import GenericHandler, RpcHandler
from gateway.rpc.handshake_filter import listening_descriptors, turn_away
from gateway.rpc.held_connections import REPEATED_S, HeldConnections, duplicate
from gateway.rpc.inflation import Inflater
from gateway.rpc.invocation import failure, invoke, requests
from gateway.rpc.listening_descriptor import low_descriptors_taken
from gateway.rpc.method import Method, MethodTable
from gateway.rpc.open_calls import OpenCall, OpenCalls
from gateway.rpc.peer_identity import certificate_names
from gateway.rpc.precedent import Precedents
from gateway.rpc.pushback import never
from gateway.rpc.server import MAX_FIELDS, ServerOptions
from gateway.rpc.server_certificate import ServerCertificate
from gateway.rpc.shown_certificate import ShownCertificate
from gateway.rpc.status_codes import Status, status_of

_log = logging.getLogger(__name__)

_STOP_WAIT_S: Final = 5.0
# Before a stop what clients send is held until for so many looks no call is open and none has begun. If none begins or
# ends for so many looks, those that are open are long ones, for which nobody is held; nor is anybody for longer than so
# many where connections are let through that always have a call.
_LOOK_S: Final = 0.01
_QUIET_LOOKS: Final = 30
_IDLE_LOOKS: Final = 50
_MOST_LOOKS: Final = 300
_MAX_CHECK_S: Final = 1.0
_ENDLESS: Final = frozenset({"/grpc.health.v1.Health/Watch"})  # who watches calls again, and no stop waits for it
_EXPIRED: Final = Status(*status_of(DeadlineExceeded("deadline exceeded"), ""))


class GrpcioServer:
    """A `gateway.rpc.server.Server` on grpc.aio. It must be made inside the event loop that it will serve on."""

    def __init__(
        self, options: ServerOptions, authorizer: Authorizer | None = None, quotas: Quotas | None = None
    ) -> None:
        self._options = options
        self._quotas = quotas
        self._authorizer = authorizer
        self._certificates = options.tls is not None and options.tls.client_ca is not None
        self._methods = MethodTable()
        self._port = 0
        self._listening: set[int] = set()  # descriptors, which grpcio owns
        self._certificate: ServerCertificate | None = None
        self._beside: list[asyncio.Task[None]] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._begun = 0  # calls
        self._calls = OpenCalls(options)
        self._inflater = Inflater(options.max_receive_bytes, self._calls.received)
        self._precedents = Precedents()
        self._server = grpc.aio.server(
            options=channel_arguments(options),
            maximum_concurrent_rpcs=options.max_concurrent_calls + CALLS_BEYOND,
        )
        self._server.add_generic_rpc_handlers((_Adapter(self._methods, self._adapt),))

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
            with low_descriptors_taken():
                self._port = self._server.add_insecure_port(address)
        else:
            certificate = self._certificate = ServerCertificate(self._options.tls)
            credentials = _credentials(certificate)
            with low_descriptors_taken():
                self._port = self._server.add_secure_port(address, credentials)
            self._beside.append(asyncio.create_task(self._follow(certificate), name="rpc certificate"))
        self._listening = listening_descriptors() - before
        self._beside.append(asyncio.create_task(self._check_calls(), name="rpc call checks"))
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
        for task in self._beside:
            task.cancel()
        if self._beside:
            await asyncio.wait(self._beside)
        if grace_s:
            end_ns = monotonic_ns() + int(grace_s * 1e9)
            if self._options.reuse_port:
                await self._turn_away()
            await self._stop_when_still(end_ns)
            grace_s = max(0.0, (end_ns - monotonic_ns()) / 1e9)
        await self._server.stop(grace_s)
        # grpcio returns before the clean-up of the handlers that it cancelled has run.
        if self._running:
            _, stuck = await asyncio.wait(self._running, timeout=_STOP_WAIT_S)
            if stuck:
                _log.warning("%d handlers did not end within %s s of their cancellation", len(stuck), _STOP_WAIT_S)
        self._inflater.stop()

    async def _stop_when_still(self, end_ns: int) -> None:
        """Stops grpcio's server between two calls, if there is such a moment; see `held_connections`."""
        held = HeldConnections(self._port)
        self._calls.on_still = held.hold
        try:
            if held.any and await self._is_still(held, end_ns):
                await self._server.stop(None)
                return
        finally:
            self._calls.on_still = None
            held.release()
        if held.any and monotonic_ns() < end_ns:
            await asyncio.sleep(REPEATED_S)  # what was held comes, and is served

    async def _is_still(self, held: HeldConnections, end_ns: int) -> bool:
        """Returns True once all calls that came are answered, False if for a while none of them goes on.

        What grpcio has read and not handed over cannot be seen, so nothing may come for several looks.
        """
        last, idle, quiet, looks = (-1, -1), 0, 0, 0
        cut: set[OpenCall] = set()
        while quiet < _QUIET_LOOKS:
            if idle > _IDLE_LOOKS or looks > _MOST_LOOKS or monotonic_ns() > end_ns:
                return False
            await asyncio.sleep(_LOOK_S)
            before, cut = cut, self._calls.on_their_way()
            held.let_through({call.peer.name for call in before & cut})
            now = (self._begun, len(self._calls))
            unchanged = now == last
            last, looks, idle = now, looks + 1, idle + 1 if unchanged else 0
            quiet = quiet + 1 if unchanged and not self._calls.awaited() and not held.unread() else 0
        return True

    async def _check_calls(self) -> None:
        while True:
            await asyncio.sleep(min(self._options.stall_timeout_s / 4, _MAX_CHECK_S))
            self._calls.check(monotonic_ns())

    @property
    def port(self) -> int:
        return self._port

    def counts(self) -> Mapping[str, int]:
        return {}  # grpcio does not tell

    @property
    def certificate(self) -> ServerCertificate | None:
        return self._certificate

    def _adapt(self, method: Method) -> Adapted:
        run: Callable[[AdaptedCall, Method, Any], Coroutine[Any, Any, bytes | None]]
        if method.by_callback:
            run = self._call_back
        elif method.request_streaming:
            run = self._stream
        else:
            run = self._call

        async def adapted(_: object, inner: Any) -> Any:
            async with self._boundary(method, inner) as context:
                return await run(context, method, inner)
            return None

        return adapted

    async def _call_back(self, context: AdaptedCall, method: Method, inner: Any) -> bytes | None:
        assert isinstance(context, AdaptedCallbackCall)
        return context.encode(await context.answered())

    async def _call(self, context: AdaptedCall, method: Method, inner: Any) -> bytes | None:
        request = method.decode(await context.message())
        return self._encoded(context, method, inner, await invoke(method, request, context))

    async def _stream(self, context: AdaptedCall, method: Method, inner: Any) -> bytes | None:
        return self._encoded(context, method, inner, await invoke(method, requests(context), context))

    def _encoded(self, context: AdaptedCall, method: Method, inner: Any, answer: object) -> bytes | None:
        if method.response_streaming:
            return None
        if answer is None and inner.code() not in (None, 0, grpc.StatusCode.OK):
            return b""  # the handler set a code and returned nothing
        return context.encode(answer)

    def _deadline_ns(self, inner: Any, method: Method) -> int:
        remaining_s = inner.time_remaining()
        if remaining_s is None:
            if method.request_streaming or method.response_streaming:
                return 0
            options = self._options
            remaining_s = options.default_deadline_s if method.by_callback else options.default_task_deadline_s
        return monotonic_ns() + int(remaining_s * 1e9)

    def _credential(self, method: Method, inner: Any) -> CallCredential | None:
        """Returns what proves who calls; None where everybody may."""
        if self._authorizer is None:
            return None
        given = [value for key, value in inner.invocation_metadata() if key == "authorization"]
        # Of several a proxy may have checked another one: together they are no credential.
        raw = ", ".join(map(str, given)).encode() if given else None
        # Read anew for each call: a peer's address names its connection only until the next client has that port.
        names = certificate_names(inner.auth_context()) if self._certificates else ()
        return CallCredential(self._authorizer, method.path.encode(), raw, names)

    @asynccontextmanager
    async def _boundary(self, method: Method, inner: Any) -> AsyncIterator[AdaptedCall]:
        """Gives a call its context, turns what it raises into a status, and ends its time."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        self._begun += 1
        held = quota_pass = None
        deadline_ns = self._deadline_ns(inner, method)
        remaining_s = (deadline_ns - monotonic_ns()) / 1e9 if deadline_ns else None
        limit = asyncio.timeout(remaining_s)
        try:
            held = self._calls.add(inner.peer(), endless=method.path in _ENDLESS)
            held.limit = limit
            inner.add_done_callback(lambda _, call=held: call.close())
            if remaining_s is not None and remaining_s <= 0:
                raise DeadlineExceeded("deadline exceeded before the call began")
            credential = self._credential(method, inner)
            principal = ANONYMOUS if credential is None else credential.prove()
            known = inner, method, deadline_ns, principal, held, self._inflater, self._options.max_send_bytes
            if method.by_callback:
                context: AdaptedCall = AdaptedCallbackCall(*known, precedents=self._precedents)
            else:
                context = AdaptedCall(*known)
            context.credential = credential
            if self._quotas is not None and method.by_callback:
                quota_pass = context.quota_pass = self._quotas.enter(principal.name, principal.tenant)
            async with limit:
                yield context
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:  # the boundary of a request
            if isinstance(error, TimeoutError) and limit.expired():
                refusal = held.refusal if held is not None else None
                status = _EXPIRED if refusal is None else status_of(refusal, method.path)
            else:
                status = failure(error, method, inner)
            said = (*(inner.trailing_metadata() or ()), *status.metadata)
            try:
                await inner.abort(status.code, status.details, said)
            except grpc.aio.InternalError:
                # The client has ended the call: nobody is left to be told, and grpcio would log a traceback.
                raise asyncio.CancelledError from None
        finally:
            if quota_pass is not None:
                quota_pass.release()
            self._running.discard(task)


class _Adapter(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Gives grpcio the adapted handler of each method, with messages left as bytes.

    To grpcio every request is a stream: it hands over the call before it reads the message, which a refused call never
    gets into memory.
    """

    def __init__(self, methods: MethodTable, adapt: Callable[[Method], Adapted]) -> None:
        self._methods = methods
        self._adapt = adapt

    def service(self, handler_call_details: Any) -> "RpcHandler | None":
        metadata = tuple(handler_call_details.invocation_metadata or ())
        if len(metadata) > MAX_FIELDS:
            return grpc.stream_stream_rpc_method_handler(_refuse_fields)
        method = self._methods.find(handler_call_details.method, metadata)
        if method is None:
            return None
        if method.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._adapt(method))
        return grpc.stream_unary_rpc_method_handler(self._adapt(method))


async def _refuse_fields(_: Any, context: Any) -> None:
    count = len(context.invocation_metadata())
    status = status_of(never(f"metadata of {count} fields, at most {MAX_FIELDS} are accepted"), "")
    await context.abort(status.code, status.details, status.metadata)


def _credentials(certificate: ServerCertificate) -> grpc.ServerCredentials:
    """Returns credentials that show at each handshake what it is then."""
    shown = ShownCertificate(certificate)
    return grpc.dynamic_ssl_server_credentials(
        shown.first,
        shown,  # type: ignore[arg-type]  # the stubs do not know that None is an answer
        require_client_authentication=certificate.material.client_ca is not None,
    )
