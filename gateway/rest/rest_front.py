"""REST at a server's address: what its connections share, on HTTP/1.1 and on HTTP/2."""

import asyncio

from gateway.access.permissions import PERMISSIONS, check_registered
from gateway.errors import GatewayError
from gateway.rest.endpoint import Endpoint, EndpointTable
from gateway.rest.http1_limits import Http1Limits
from gateway.rest.http1_protocol import Http1Protocol
from gateway.rest.http2_stream import Http2Stream
from gateway.rest.http_call import HttpCall
from gateway.rest.http_head import HeadParser
from gateway.rest.http_refusal import HttpRefusal, refusal_of
from gateway.rest.response_head import ResponseHeads
from gateway.rpc.metadata import Fields
from gateway.rpc.output import Output
from gateway.rpc.server_state import ServerState


class RestFront:
    """The `gateway.rpc.http_front.HttpFront` of one table of endpoints.

    Raises: TypeError if the table of permissions misses one of an endpoint.
    """

    def __init__(self, table: EndpointTable, limits: Http1Limits | None = None) -> None:
        check_registered(table.permissions(), PERMISSIONS)
        self._parser = HeadParser(table)
        self._heads = ResponseHeads()
        self._limits = limits or Http1Limits()

    def protocol(self, server: ServerState) -> asyncio.BaseProtocol:
        return Http1Protocol(server, self._parser, self._heads, self._limits)

    def open(
        self,
        server: ServerState,
        output: Output,
        stream_id: int,
        headers: Fields,
        names: tuple[str, ...],
        *,
        ended: bool,
    ) -> Http2Stream:
        head = self._parser.of_stream(headers, server.options.max_metadata_bytes)
        outcome = head.outcome
        if isinstance(outcome, HttpRefusal):
            stream = Http2Stream(server, output, stream_id, headers, head, _NOBODY)
            stream.turn_away(outcome, ended=ended)
            return stream
        stream = Http2Stream(server, output, stream_id, headers, head, outcome.endpoint)
        try:
            stream.admit(names)
        except GatewayError as error:
            stream.turn_away(refusal_of(error, head.path), ended=ended)
        return stream

    def tick(self) -> None:
        self._heads.tell_time()


def _nobody(call: HttpCall) -> None:
    raise AssertionError("a request that was refused has no endpoint")


_NOBODY = Endpoint(_nobody, "")
