"""TLS handshakes: connections that count against every limit from the moment they are accepted."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from gateway.rpc.peer_identity import peer_address
from gateway.rpc.server_state import ServerState

_log = logging.getLogger(__name__)
_ACCEPT_PAUSE_S: Final = 0.5  # after a failure, such as no descriptor being left


class TlsHandshake:
    """Holds the place of a connection until TLS is agreed upon, or its handshake time is over."""

    def __init__(
        self,
        server: ServerState,
        accepted: socket.socket,
        peer: object,
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self._server = server
        self._make = protocol
        self._accepted = accepted
        self._task: asyncio.Task[None] | None = None
        self.address = peer_address(peer)

    def begin(self, context: ssl.SSLContext) -> None:
        """Takes a connection's place and starts the handshake, or closes the socket if there is no place."""
        if self._server.add(self, handshake=True):
            self._task = self._server.spawn(self._shake_hands(context), "tls handshake")
        else:
            self._accepted.close()

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        server = self._server
        try:
            await server.loop.connect_accepted_socket(
                self._protocol, self._accepted, ssl=context, ssl_handshake_timeout=server.options.handshake_timeout_s
            )
        except OSError:  # no TLS comes about, or the peer or the time has gone
            server.broken += 1
        finally:
            server.remove(self)

    def _protocol(self) -> asyncio.BaseProtocol:
        protocol: Any = self._make()
        made = protocol.connection_made

        def connection_made(transport: asyncio.BaseTransport) -> None:
            self._server.release(self)  # its place is the connection's
            made(transport)

        protocol.connection_made = connection_made
        return protocol  # type: ignore[no-any-return]

    # What the server asks of every connection.

    @property
    def open_calls(self) -> int:
        return 0

    def check(self, now_ns: int) -> None:
        """Does nothing: the event loop ends what takes too long."""

    def drain(self, grace_s: float) -> None:
        self.abort()

    def end(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()


class TlsListener:
    """Accepts connections for TLS; as an asyncio.Server, which shows no connection before its handshake is over."""

    def __init__(
        self,
        server: ServerState,
        bound: socket.socket,
        context: Callable[[], ssl.SSLContext],
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self._protocol = protocol
        self._server = server
        self._bound = bound
        self._context = context
        self._accepting = server.loop.create_task(self._accept(), name="rpc accept")

    async def _accept(self) -> None:
        loop, trouble = self._server.loop, ""
        with self._bound:
            while True:
                try:
                    accepted, peer = await loop.sock_accept(self._bound)
                except OSError as error:
                    if str(error) != trouble:
                        trouble = str(error)
                        _log.error("connections are not accepted: %s", error.strerror)
                    await asyncio.sleep(_ACCEPT_PAUSE_S)
                    continue
                trouble = ""
                TlsHandshake(self._server, accepted, peer, self._protocol).begin(self._context())

    def close(self) -> None:
        """Accepts nothing more."""
        self._accepting.cancel()

    async def wait_closed(self) -> None:
        """Returns when the socket is closed."""
        await asyncio.wait((self._accepting,))
