"""The fast transport: gRPC over ngh2 on asyncio protocols."""

import asyncio
import logging
import socket
from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import monotonic_ns
from typing import Final

from gateway.access.quotas import Quotas
from gateway.rpc.authorizer import Authorizer
from gateway.rpc.connection import ConnectionProtocol
from gateway.rpc.handler import GenericHandler, RpcHandler
from gateway.rpc.handshake_filter import turn_away
from gateway.rpc.http_front import HttpFront
from gateway.rpc.listening_descriptor import raised
from gateway.rpc.method import MethodTable
from gateway.rpc.server import ServerOptions
from gateway.rpc.server_certificate import ServerCertificate
from gateway.rpc.server_state import ServerState
from gateway.rpc.tls_handshake import TlsListener

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_STOP_WAIT_S: Final = 5.0
# So long clients may take what was written when the grace time is over, or go: a worker is killed a second after it.
_LAST_WAIT_S: Final = 0.5
_MIN_CHECK_S: Final = 0.02
_MAX_CHECK_S: Final = 1.0


class Ngh2Server:
    """A `gateway.rpc.server.Server` on ngh2; `start` binds it to the running event loop (uvloop's is faster).

    With `listening`, a socket that listens already, it serves there and not at the options' address, and closes it at
    the end; a unix socket speaks plain text. With a `front` it serves HTTP at its address as well, or alone where no
    method is registered.
    """

    def __init__(
        self,
        options: ServerOptions,
        authorizer: Authorizer | None = None,
        quotas: Quotas | None = None,
        listening: socket.socket | None = None,
        front: HttpFront | None = None,
    ) -> None:
        self._front = front
        self._options = options
        self._given = listening
        self._authorizer = authorizer
        self._quotas = quotas
        self._methods = MethodTable()
        self._state: ServerState | None = None
        self._certificate: ServerCertificate | None = None
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | TlsListener | None = None
        self._checks: list[asyncio.Task[None]] = []
        self._port = 0

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[GenericHandler]) -> None:
        self._methods.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, RpcHandler]) -> None:
        self._methods.register(service_name, method_handlers)

    def paths(self) -> Iterable[str]:
        return self._methods.registered()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        options = self._options
        certificate = None
        if options.tls is not None:
            protocols = ("h2",) if self._front is None else ("h2", "http/1.1")
            certificate = ServerCertificate(replace(options.tls, protocols=protocols))
        self._certificate = certificate
        state = self._state = ServerState(options, self._methods, loop, self._authorizer, self._quotas, self._front)
        self._socket = raised(self._given or _listening_socket(options))
        if self._socket.family != socket.AF_UNIX:
            self._port = self._socket.getsockname()[1]
        self._listener = await self._listen(state, raised(self._socket.dup()))
        checks = {"rpc connection checks": self._check_connections(state)}
        if certificate is not None:
            checks["rpc certificate"] = self._follow(certificate)
        self._checks = [loop.create_task(check, name=name) for name, check in checks.items()]
        for check in self._checks:
            check.add_done_callback(_report)

    async def _listen(self, state: ServerState, bound: socket.socket) -> asyncio.Server | TlsListener:
        """Returns what accepts connections.

        Each certificate has a context of its own, so no session of an old one is resumed, whose client authority may be
        gone.
        """
        front = self._front

        def protocol() -> asyncio.BaseProtocol:
            return ConnectionProtocol(state) if front is None else front.protocol(state)

        if bound.family == socket.AF_UNIX:
            return await state.loop.create_unix_server(protocol, sock=bound, backlog=_BACKLOG)
        certificate = self._certificate
        if certificate is not None:
            bound.listen(_BACKLOG)
            return TlsListener(state, bound, lambda: certificate.material.context, protocol)
        return await state.loop.create_server(protocol, sock=bound, backlog=_BACKLOG)

    async def _follow(self, certificate: ServerCertificate) -> None:
        async for _ in certificate.renewals(self._options.tls_look_s):
            pass  # the next handshake shows it

    async def stop(self, grace_s: float | None) -> None:
        state, listener = self._state, self._listener
        if state is None or listener is None:
            return
        end_s = state.loop.time() + (grace_s or 0.0)
        # Who has connected to a socket that others hold too is accepted by one of them.
        if grace_s and self._socket is not None and self._options.reuse_port and self._given is None:
            await turn_away([self._socket])
        listener.close()
        if self._socket is not None:
            self._socket.close()
        for connection in list(state.connections):
            connection.drain(max(0.0, end_s - state.loop.time()))
        try:
            async with asyncio.timeout_at(end_s):
                await state.empty.wait()
        except TimeoutError:
            for connection in list(state.connections):
                connection.end()
        await self._wait_for_end(state)
        for check in self._checks:
            check.cancel()
        await asyncio.wait(self._checks)
        state.wheel.stop()
        state.inflater.stop()
        await listener.wait_closed()
        self._state = self._listener = self._socket = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def certificate(self) -> ServerCertificate | None:
        return self._certificate

    def counts(self) -> dict[str, int]:
        """Returns what a worker's metrics say of its connections.

        These are the connections open now; those accepted, refused for a limit, and ended because the peer broke HTTP/2
        or flooded, since the start; and the calls that are not answered yet.
        """
        state = self._state
        if state is None:
            return {"open": 0, "accepted": 0, "refused": 0, "broken": 0, "calls": 0}
        return {
            "open": len(state.connections),
            "accepted": state.accepted,
            "refused": state.refused,
            "broken": state.broken,
            "calls": state.open_calls,
        }

    async def _wait_for_end(self, state: ServerState) -> None:
        """Waits until every handler has ended and every connection is closed; says which would not."""
        if state.tasks:
            _, stuck = await asyncio.wait(state.tasks, timeout=_STOP_WAIT_S)
            if stuck:
                _log.warning("%d handlers did not end within %s s of their cancellation", len(stuck), _STOP_WAIT_S)
        try:
            async with asyncio.timeout(_LAST_WAIT_S):
                await state.empty.wait()
        except TimeoutError:
            for connection in list(state.connections):
                connection.abort()
            await state.empty.wait()

    async def _check_connections(self, state: ServerState) -> None:
        options = self._options
        shortest_s = min(
            options.handshake_timeout_s,
            options.idle_timeout_s,
            options.max_connection_age_s,
            options.age_grace_s,
            options.keepalive_time_s,
            options.keepalive_timeout_s,
            options.stall_timeout_s,
        )
        interval_s = min(max(shortest_s / 4, _MIN_CHECK_S), _MAX_CHECK_S)
        while True:
            await asyncio.sleep(interval_s)
            now_ns = monotonic_ns()
            if state.front is not None:
                state.front.tick()
            for connection in list(state.connections):
                connection.check(now_ns)


def _report(checks: asyncio.Task[None]) -> None:
    if not checks.cancelled() and (error := checks.exception()) is not None:
        _log.critical("%s: not done any more", checks.get_name(), exc_info=error)


def _listening_socket(options: ServerOptions) -> socket.socket:
    """Returns a bound socket, made by hand because uvloop and asyncio differ in what they set before they bind."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted sockets inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setblocking(False)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening
