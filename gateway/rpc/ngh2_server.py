"""The fast transport: gRPC over ngh2 on asyncio protocols."""

import asyncio
import logging
import socket
from collections.abc import Iterable, Mapping
from time import monotonic_ns
from typing import Final

from gateway.rpc.connection import Connection
from gateway.rpc.handler import GenericHandler, RpcHandler
from gateway.rpc.host import Host
from gateway.rpc.method import MethodTable
from gateway.rpc.server import ServerOptions
from gateway.rpc.tls import server_context

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_STOP_WAIT_S: Final = 5.0
_MIN_CHECK_S: Final = 0.02
_MAX_CHECK_S: Final = 1.0


class Ngh2Server:
    """A `gateway.rpc.server.Server` on ngh2; `start` binds it to the running event loop (uvloop's is faster)."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._methods = MethodTable()
        self._host: Host | None = None
        self._listener: asyncio.Server | None = None
        self._checks: asyncio.Task[None] | None = None
        self._port = 0

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[GenericHandler]) -> None:
        self._methods.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, RpcHandler]) -> None:
        self._methods.register(service_name, method_handlers)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        options = self._options
        host = self._host = Host(options, self._methods, loop)
        secure = server_context(options.tls) if options.tls is not None else None
        self._listener = await loop.create_server(
            lambda: Connection(host),
            sock=_listening_socket(options),
            backlog=_BACKLOG,
            ssl=secure,
            ssl_handshake_timeout=options.handshake_timeout_s if secure is not None else None,
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        self._checks = loop.create_task(self._check_connections(host), name="rpc connection checks")
        self._checks.add_done_callback(_report)

    async def stop(self, grace_s: float | None) -> None:
        host, listener = self._host, self._listener
        if host is None or listener is None:
            return
        listener.close()
        for connection in list(host.connections):
            connection.lifetime.drain(grace_s or 0.0)
        try:
            async with asyncio.timeout(grace_s or 0.0):
                await host.empty.wait()
        except TimeoutError:
            for connection in list(host.connections):
                connection.lifetime.end()
        await self._settle(host)
        if self._checks is not None:
            self._checks.cancel()
            await asyncio.wait((self._checks,))
        host.wheel.stop()
        await listener.wait_closed()
        self._host = self._listener = None

    @property
    def port(self) -> int:
        return self._port

    def counts(self) -> dict[str, int]:
        """What a worker's metrics say of its connections: open now, and since the start accepted, refused for the
        limit, and ended because the peer broke HTTP/2 or flooded; calls that are not answered yet."""
        host = self._host
        if host is None:
            return {"open": 0, "accepted": 0, "refused": 0, "broken": 0, "calls": 0}
        return {
            "open": len(host.connections),
            "accepted": host.accepted,
            "refused": host.refused,
            "broken": host.broken,
            "calls": sum(len(connection.calls) for connection in host.connections),
        }

    async def _settle(self, host: Host) -> None:
        """Every handler has ended and every connection is closed, or it is said which would not."""
        if host.tasks:
            _, stuck = await asyncio.wait(host.tasks, timeout=_STOP_WAIT_S)
            if stuck:
                _log.warning("%d handlers did not end within %s s of their cancellation", len(stuck), _STOP_WAIT_S)
        try:
            async with asyncio.timeout(_STOP_WAIT_S):
                await host.empty.wait()
        except TimeoutError:
            for connection in list(host.connections):
                connection.lifetime.abort()
            await host.empty.wait()

    async def _check_connections(self, host: Host) -> None:
        options = self._options
        shortest_s = min(
            options.handshake_timeout_s,
            options.idle_timeout_s,
            options.max_connection_age_s,
            options.age_grace_s,
            options.keepalive_time_s,
            options.keepalive_timeout_s,
        )
        interval_s = min(max(shortest_s / 4, _MIN_CHECK_S), _MAX_CHECK_S)
        while True:
            await asyncio.sleep(interval_s)
            now_ns = monotonic_ns()
            for connection in list(host.connections):
                connection.lifetime.check(now_ns)


def _report(checks: asyncio.Task[None]) -> None:
    if not checks.cancelled() and (error := checks.exception()) is not None:
        _log.critical("connections are not checked any more", exc_info=error)


def _listening_socket(options: ServerOptions) -> socket.socket:
    """A bound socket; made by hand because uvloop and asyncio differ in what they set before they bind."""
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
