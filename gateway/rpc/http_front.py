"""The seam to what else is spoken at a server's address: HTTP/1.1, and HTTP/2 requests that are not gRPC."""

import asyncio
from typing import TYPE_CHECKING, Protocol

from gateway.rpc.metadata import Fields

if TYPE_CHECKING:
    from gateway.rpc.output import Output
    from gateway.rpc.server_call import ServerCall
    from gateway.rpc.server_state import ServerState


class HttpFront(Protocol):
    """Serves the requests of HTTP that are not gRPC."""

    def protocol(self, server: "ServerState") -> asyncio.BaseProtocol:
        """Returns what takes the bytes of a new connection: HTTP/1.1, or HTTP/2 by its preface or by ALPN."""

    def open(
        self,
        server: "ServerState",
        output: "Output",
        stream_id: int,
        headers: Fields,
        names: tuple[str, ...],
        *,
        ended: bool,
    ) -> "ServerCall":
        """Returns the call of a stream; it may be answered already.

        `names` are those of the client's certificate; `ended`: the request has no body.
        """

    def tick(self) -> None:
        """Takes notice of the time; called about once a second."""
