"""The state that the connections of one ngh2 server share."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import ngh2

from gateway.access.quotas import Quotas
from gateway.rpc.authorizer import Authorizer
from gateway.rpc.busy_poll import BusyPoll
from gateway.rpc.deadline import DeadlineWheel
from gateway.rpc.held_refusals import HeldRefusals
from gateway.rpc.http_front import HttpFront
from gateway.rpc.inflation import Inflater
from gateway.rpc.message import byte_budgets
from gateway.rpc.method import Method, MethodTable
from gateway.rpc.output import UNREAD_BYTES
from gateway.rpc.server import ServerOptions

STREAM_SHARE_BYTES: Final = 64 * 1024  # of the connection's window
_WINDOW_BYTES: Final = 16 * 1024 * 1024  # of a connection, more where it may have very many streams
STREAM_WINDOW_BYTES: Final = 4 * 1024 * 1024  # of a message that is let in
# Beyond these the whole connection ends; from `max_metadata_bytes` and `MAX_FIELDS` to here only the call does.
_HEADER_BYTES: Final = 1 << 20
_HEADER_COUNT: Final = 16 * 1024
_CONTINUATIONS: Final = 64  # frames of 16 KiB
_READ_BYTES: Final = 512 * 1024
# Resets and glitches: a burst, then so many in a second. A client whose calls run into their deadlines resets streams
# as well, so the rate is one that costs a few per cent of a core, not the lowest that works.
_RESETS: Final = (1000, 200)
_GLITCHES: Final = (1000, 100)


class OpenConnection(Protocol):
    """A connection as its server sees it; see `gateway.rpc.lifetime.Lifetime`."""

    @property
    def address(self) -> str: ...

    @property
    def open_calls(self) -> int: ...

    def check(self, now_ns: int) -> None: ...

    def drain(self, grace_s: float) -> None: ...

    def end(self) -> None: ...

    def abort(self) -> None: ...


class ServerState:
    """Holds the limits, the methods, and everything that is counted over all connections.

    One buffer serves all reads: asyncio and uvloop fill it and call the protocol without anything in between, and ngh2
    copies what it keeps. An idle connection so holds no buffer of its own.
    """

    def __init__(
        self,
        options: ServerOptions,
        methods: MethodTable,
        loop: asyncio.AbstractEventLoop,
        authorizer: Authorizer | None = None,
        quotas: Quotas | None = None,
        front: HttpFront | None = None,
    ) -> None:
        self.front = front  # of what is spoken here beside gRPC
        self.authorizer = authorizer
        self.quotas = quotas
        self.options = options
        self.methods = methods
        self.held_refusals = HeldRefusals(loop)
        self.max_receive_bytes = options.max_receive_bytes
        self.max_calls = options.max_concurrent_calls
        self.open_calls = 0  # of all connections
        self.loop = loop
        self.paths: dict[bytes, Method] = {path.encode(): method for path, method in methods.registered().items()}
        self.wheel = DeadlineWheel(loop)
        self.busy_poll = BusyPoll(loop, options.busy_poll_us * 1000)
        budgets = options.budgets or byte_budgets(options.max_inflight_bytes, options.on_unread)
        self.received, self.unsent = budgets.received, budgets.unsent
        self.inflater = Inflater(options.max_receive_bytes, self.received)
        self.buffer = memoryview(bytearray(_READ_BYTES))
        self.connections: dict[OpenConnection, None] = {}  # in the order in which they came
        self._by_address: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()
        self.accepted = self.refused = self.broken = 0  # connections since the start
        self.empty = asyncio.Event()
        self.empty.set()
        self.window_bytes = max(_WINDOW_BYTES, STREAM_SHARE_BYTES * options.max_concurrent_streams)
        self.default_deadline_ns = int(options.default_deadline_s * 1e9)
        self.default_task_deadline_ns = int(options.default_task_deadline_s * 1e9)
        self.configuration = ngh2.Configuration(
            auto_window_update=False,
            stream_reset_rate_limit=_RESETS,
            glitch_rate_limit=_GLITCHES,
            max_outbound_ack=500,
            max_continuations=_CONTINUATIONS,
            max_inbound_header_list_size=max(_HEADER_BYTES, 2 * options.max_metadata_bytes),
            max_inbound_header_count=_HEADER_COUNT,
        )
        self.settings = {
            ngh2.Setting.MAX_CONCURRENT_STREAMS: options.max_concurrent_streams,
            ngh2.Setting.INITIAL_WINDOW_SIZE: UNREAD_BYTES,
            ngh2.Setting.MAX_HEADER_LIST_SIZE: options.max_metadata_bytes,
        }

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Returns a task of a handler, which the end of the server waits for."""
        task = self.loop.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def add(self, connection: OpenConnection, *, handshake: bool = False) -> bool:
        """Counts the connection; returns False, with nothing counted, if there is no room for it.

        A handshake takes a connection's place, and is not accepted yet.
        """
        address, most = connection.address, self.options.max_connections_per_address
        if (most and address and self._by_address[address] >= most) or (
            len(self.connections) >= self.options.max_connections and not self._made_room(address)
        ):
            self.refused += 1
            return False
        self.accepted += not handshake
        self._by_address[address] += 1
        self.connections[connection] = None
        self.empty.clear()
        return True

    def _made_room(self, address: str) -> bool:
        """Ends a connection of the address that has the most, for one of an address that will have fewer still.

        Order: the newest without a call goes first, then the newest: whoever has been there for long is at work.
        """
        if not self.options.makes_room or not self._by_address:
            return False
        greedy, most = self._by_address.most_common(1)[0]
        if most <= self._by_address[address] + 1:
            return False
        theirs = [one for one in reversed(self.connections) if one.address == greedy]
        ended = next((one for one in theirs if not one.open_calls), theirs[0])
        self.release(ended)
        ended.abort()
        return True

    def release(self, connection: OpenConnection) -> None:
        """Frees the place of a connection for one that takes it at once."""
        if connection in self.connections:
            del self.connections[connection]
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def remove(self, connection: OpenConnection) -> None:
        """Frees the place of a connection that has ended."""
        self.release(connection)
        if not self.connections:
            self.empty.set()
