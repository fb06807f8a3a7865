"""What the event loop calls of an HTTP/1.1 connection."""

import asyncio
from typing import Final

from gateway.rest.http1_connection import Http1Connection
from gateway.rest.http1_limits import Http1Limits
from gateway.rest.http_head import HeadParser
from gateway.rest.response_head import ResponseHeads
from gateway.rpc.server_state import ServerState

_CALLED_BY_THE_LOOP: Final = (
    *("connection_made", "get_buffer", "buffer_updated", "eof_received", "connection_lost"),
    *("pause_writing", "resume_writing"),
)


class Http1Protocol(asyncio.BufferedProtocol):
    """Gives the event loop the methods of a connection: mypyc compiles a class better that has no foreign base."""

    def __init__(self, server: ServerState, parser: HeadParser, heads: ResponseHeads, limits: Http1Limits) -> None:
        connection = Http1Connection(server, parser, heads, limits)
        for name in _CALLED_BY_THE_LOOP:
            setattr(self, name, getattr(connection, name))
