"""A call of the ngh2 transport: its stream, its metadata, its deadline, its end."""

from collections.abc import Iterable, Mapping
from time import monotonic_ns
from typing import Final

import grpc
import ngh2

from gateway.access.principal import ANONYMOUS, Principal
from gateway.access.quota_pass import QuotaPass
from gateway.errors import DeadlineExceeded, GatewayError, Overloaded, Unavailable
from gateway.rpc.deadline import Slot
from gateway.rpc.handler import Metadata, OwnMetadatum
from gateway.rpc.inflation import Inflation
from gateway.rpc.message import Assembler
from gateway.rpc.metadata import Fields, Pair, decode, overload_trailers, status_trailers
from gateway.rpc.method import Method
from gateway.rpc.output import UNREAD_BYTES, Output
from gateway.rpc.peer_identity import identity_key
from gateway.rpc.server_state import STREAM_WINDOW_BYTES, ServerState
from gateway.rpc.status_codes import Status, status_of

# The states of a call. OPEN: it has no status yet. ANSWERED: its status is on its way. GONE: nobody waits for one.
OPEN: Final = 0
ANSWERED: Final = 1
GONE: Final = 2

RESPONSE: Final[Fields] = ((b":status", b"200"), (b"content-type", b"application/grpc"))
_CANCEL: Final = 8


class ServerCall:
    """One stream of a connection. The connection feeds it, a subclass runs its handler, `output` takes its answer.

    Units: `deadline_ns` on the monotonic clock, 0: none.
    """

    __slots__ = (
        "assembler",
        "deadline_ns",
        "encoding",
        "fields",
        "headers",
        "held_bytes",
        "inflation",
        "method",
        "output",
        "principal",
        "quota_pass",
        "request_ended",
        "response_begun",
        "server",
        "slot",
        "state",
        "stream_id",
    )

    def __init__(self, server: ServerState, output: Output, stream_id: int, method: Method, headers: Fields) -> None:
        self.server = server
        self.output = output
        self.stream_id = stream_id
        self.method = method
        self.headers = headers
        self.principal: Principal = ANONYMOUS
        self.quota_pass: QuotaPass | None = None
        self.fields: dict[bytes, bytes] = {}
        self.deadline_ns = 0
        self.encoding = b""
        self.held_bytes = 0  # received, and the client does not know yet that it may send as many more
        self.slot: Slot | None = None
        self.assembler: Assembler | None = None
        self.inflation: Inflation | None = None
        self.request_ended = False
        self.response_begun = False
        self.state = OPEN

    # What the connection and the deadline wheel tell a call.

    def receive(self, data: bytes, end: bool) -> None:
        """Takes data that the client sent; with `end` there is no more."""
        raise NotImplementedError

    def half_close(self) -> None:
        """Notes that the client sends no more data."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Tells the handler that nobody waits for its answer."""
        raise NotImplementedError

    def expire(self) -> None:
        """Fails an open call whose deadline has passed; drops an answer that the client does not read."""
        if self.state == OPEN:
            self.refuse(DeadlineExceeded("deadline exceeded"))
            self._drop_queue()
        elif self.state == ANSWERED:
            self.output.reset(self.stream_id, _CANCEL)

    def shut(self) -> None:
        """Fails an open call because the server stops."""
        if self.state == OPEN:
            self.refuse(Unavailable("the server is shutting down"))
            self._drop_queue()

    def _drop_queue(self) -> None:
        """Resets a stream whose messages are not read: the status behind them would never reach the client."""
        if self.output.queued_bytes(self.stream_id):
            self.output.reset(self.stream_id, _CANCEL)

    def closed(self) -> None:
        """Ends the call with its stream, on which nothing can be sent any more."""
        if self.state == OPEN:
            self.state = GONE
            self.abandon()
        self.state = GONE
        self.acknowledge()  # the connection's window counts them still
        if self.assembler is not None:
            self.assembler.release()
        if self.inflation is not None:
            self.inflation.release()

    def acknowledge(self) -> None:
        """Lets the client send as many bytes as were held."""
        if self.held_bytes:
            self.output.acknowledge(self.held_bytes, self.stream_id)
            self.held_bytes = 0

    def widen(self, *, waits: bool = False) -> None:
        """Lets the client send on with the window of a call that is let in.

        One that `waits` for others has less: whatever is on its way delays the heads behind it.
        """
        self.output.widen(UNREAD_BYTES if waits else STREAM_WINDOW_BYTES, self.stream_id)

    # How a call ends.

    def refuse(self, error: GatewayError) -> None:
        """Ends an open call with an error that did not come from its handler, which is stopped."""
        self.send_status(status_of(error, self.method.path))
        self.abandon()

    def send_status(self, status: Status, metadata: Metadata = (), own: OwnMetadatum | None = None) -> None:
        """Sends the status: as trailers where a response has begun, else as the whole response.

        Raises: ValueError, with nothing sent, for metadata that cannot be sent.
        """
        self._conclude(status_trailers(status, metadata, own))
        self.answered()

    def send_refusal(self, error: Overloaded, metadata: Metadata, own: OwnMetadatum | None) -> None:
        """Does what `send_status` does, at the cost that a refusal may have of which there are thousands a second.

        Raises: as `send_status`.
        """
        self._conclude(overload_trailers(error, metadata, own))
        output = self.output
        output.answered = True
        if not self.request_ended:
            output.half_open.add(self.stream_id)
        output.schedule_refusal()

    def _conclude(self, fields: Fields) -> None:
        self.state = ANSWERED
        h2 = self.output.h2
        try:
            if self.response_begun:
                h2.send_trailers(self.stream_id, fields)
            else:
                h2.send_response(self.stream_id, RESPONSE + fields, end_stream=True)
        except ngh2.NGH2Error:
            self.state = GONE  # the stream ended in the same read as this call's last data

    def answered(self) -> None:
        """Has the status sent, and then a client stopped that still sends."""
        output = self.output
        output.answered = True
        if not self.request_ended:
            output.half_open.add(self.stream_id)
        if not output.flushing:
            output.schedule()

    def make_assembler(self) -> Assembler:
        server = self.server
        method = self.method
        limit_bytes = method.most_bytes(server.max_receive_bytes)
        self.assembler = Assembler(
            limit_bytes, server.received, encoding=self.encoding, views=method.by_callback, path=method.path
        )
        return self.assembler

    # What handlers ask.

    def metadata_value(self, name: str) -> str | None:
        key = name.encode()
        value = self.fields.get(key)
        if value is None:
            return None
        if len(self.fields) != len(self.headers):  # some name comes twice; a dict keeps its last value
            value = next(value for name, value in self.headers if name == key)
        return value.decode("latin-1")

    def invocation_metadata(self) -> tuple[Pair, ...]:
        return decode(self.headers)

    def time_remaining(self) -> float | None:
        return max(0.0, (self.deadline_ns - monotonic_ns()) / 1e9) if self.deadline_ns else None

    def peer(self) -> str:
        return self.output.peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self.output.auth_context

    def peer_identity_key(self) -> str | None:
        return identity_key(self.output.auth_context)

    def peer_identities(self) -> Iterable[bytes] | None:
        key = identity_key(self.output.auth_context)
        return None if key is None else self.output.auth_context[key]

    @property
    def accepts_gzip(self) -> bool:
        return b"gzip" in self.fields.get(b"grpc-accept-encoding", b"")


OK: Final = grpc.StatusCode.OK
