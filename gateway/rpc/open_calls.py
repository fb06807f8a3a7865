"""The open calls of the grpcio transport: how many there are, from how many connections, and what each holds.

grpcio shows calls and no connections, so a connection is what its calls say of their peer: address and port.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

from gateway.errors import ResourceExhausted
from gateway.rpc.inflation import Inflation
from gateway.rpc.message import ByteBudget
from gateway.rpc.output import CONGESTED, QUEUED_BYTES
from gateway.rpc.peer_identity import peer_address
from gateway.rpc.pushback import later
from gateway.rpc.request_head import too_many_calls
from gateway.rpc.server import ServerOptions

_NO_ROOM: Final = "the message comes too slowly for a server that has no room left"


class Peer:
    """One connection with open calls. Units: `unsent_bytes` of its answers are not read yet."""

    __slots__ = ("address", "calls", "name", "unsent_bytes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = _address(name)
        self.calls = 0
        self.unsent_bytes = 0


class OpenCall:
    """Holds what one call has taken, from its head until grpcio is done with it.

    Units: `awaited_ns` is since when a unary call waits for its message, 0 while it does not.
    """

    __slots__ = (
        "_calls",
        "awaited_ns",
        "endless",
        "inflation",
        "limit",
        "peer",
        "received_bytes",
        "refusal",
        "unsent_bytes",
    )

    def __init__(self, calls: "OpenCalls", peer: Peer, endless: bool) -> None:
        self._calls = calls
        self.peer = peer
        self.endless = endless
        self.awaited_ns = 0
        self.inflation: Inflation | None = None  # of the message that the handler has
        self.limit: Any = None  # the asyncio.Timeout of its handler
        self.received_bytes = 0
        self.refusal: ResourceExhausted | None = None
        self.unsent_bytes = 0

    def receive(self, count: int) -> None:
        """Counts a message in the place of the one before. Raises: ResourceExhausted."""
        self._calls.progress()
        if self.inflation is not None:
            self.inflation.release()
            self.inflation = None
        self._calls.received.give(self.received_bytes)
        self.received_bytes = 0
        self._calls.received.take(count)
        self.received_bytes = count

    def expect(self, count: int) -> None:
        """Counts a message that will be like the caller's last ones. Raises: ResourceExhausted."""
        received = self._calls.received
        if count <= received.size_bytes:
            received.take(count, "a message like the last ones of its caller,")
            self.received_bytes = count

    def reserve(self, count: int) -> None:
        """Counts an answer before it is sent. Raises: ResourceExhausted."""
        self._calls.reserve(self.peer, count)
        self.unsent_bytes += count

    def sent(self, count: int) -> None:
        """Counts an answer that has left."""
        self.unsent_bytes -= count
        self.peer.unsent_bytes -= count
        self._calls.unsent.give(count)

    def refuse(self, error: ResourceExhausted) -> None:
        """Ends the call at once, while its handler waits for a message."""
        self.refusal = error
        self.limit.reschedule(0.0)

    def close(self) -> None:
        """Gives back everything that the call held."""
        self._calls.remove(self)


class OpenCalls:
    """The limits of one server over all of its calls.

    1. A call is refused at its head, and its message never read, where too many calls are open; where calls of too many
       other connections of its address are; and where its connection leaves answers unread and room for them is scarce,
       or leaves more than a quarter of that room.
    2. A message or an answer without room is refused.
    3. How much of a message has come cannot be seen. A unary call that has waited for its message longer than
       `stall_timeout_s` is taken to hold the largest, and refused if that has no room. From its head on a message that
       is answered by callback counts as the smaller of the last two of its caller, and is refused if that has no room;
       one call in a second without a message is not, to show what its caller sends now.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self.received = ByteBudget(options.max_inflight_bytes)
        self.unsent = ByteBudget(options.max_inflight_bytes, options.on_unread)
        self.progress = options.on_progress or (lambda: None)
        self.on_still: Callable[[str], None] | None = None  # told the peer whose last open call has ended
        self._congested_bytes = max(options.max_send_bytes + 16 * QUEUED_BYTES, options.max_inflight_bytes // 4)
        self._calls: set[OpenCall] = set()
        self._peers: dict[str, Peer] = {}
        self._by_address: Counter[str] = Counter()

    def add(self, peer_name: str, *, endless: bool = False) -> OpenCall:
        """Returns a call that was let in; it is closed once. Raises: ResourceExhausted, with nothing counted.

        `endless`: it goes on until one side ends, and nobody waits for its end.
        """
        options = self._options
        self.progress()
        if len(self._calls) >= options.max_concurrent_calls:
            raise later(too_many_calls(len(self._calls), options.max_concurrent_calls))
        peer = self._peers.get(peer_name)
        if peer is None:
            peer = Peer(peer_name)
            most, address = options.max_connections_per_address, peer.address
            if most and address and self._by_address[address] >= most:
                raise later(f"calls of {most} connections of this address are open, no more are served at a time")
            self._peers[peer_name] = peer
            self._by_address[address] += 1
        elif peer.unsent_bytes > self._congested_bytes or (peer.unsent_bytes > 0 and self.unsent.scarce):
            raise later(CONGESTED)
        peer.calls += 1
        call = OpenCall(self, peer, endless)
        self._calls.add(call)
        return call

    def remove(self, call: OpenCall) -> None:
        """Takes a call out, with everything that it held."""
        if call not in self._calls:
            return
        self._calls.remove(call)
        call.receive(0)
        call.sent(call.unsent_bytes)
        peer = call.peer
        peer.calls -= 1
        if not peer.calls:
            del self._peers[peer.name]
            if self.on_still is not None:
                self.on_still(peer.name)
            self._by_address[peer.address] -= 1
            if not self._by_address[peer.address]:
                del self._by_address[peer.address]

    def reserve(self, peer: Peer, count: int) -> None:
        """Counts an answer of a connection. Raises: ResourceExhausted, with nothing counted."""
        if peer.unsent_bytes + count > 2 * self._congested_bytes:
            raise later(f"answer of {count} bytes: {peer.unsent_bytes} bytes of {CONGESTED}")
        self.unsent.take(count, "an answer")
        peer.unsent_bytes += count

    def check(self, now_ns: int) -> None:
        """Counts the messages that come slowly as the largest, and refuses those for which there is no room."""
        before_ns = now_ns - int(self._options.stall_timeout_s * 1e9)
        most_bytes = self._options.max_receive_bytes
        slow = [one for one in self._calls if 0 < one.awaited_ns < before_ns and one.received_bytes < most_bytes]
        for call in slow:
            try:
                call.receive(most_bytes)
            except ResourceExhausted:
                call.refuse(later(_NO_ROOM))

    def awaited(self) -> bool:
        """Returns whether a call is open whose end somebody waits for."""
        return any(not call.endless for call in self._calls)

    def on_their_way(self) -> set[OpenCall]:
        """Returns the unary calls whose message, or whose answer, is not all there."""
        return {call for call in self._calls if call.awaited_ns or call.unsent_bytes}

    def __len__(self) -> int:
        return len(self._calls)


def _address(peer: str) -> str:
    """Returns the address of a peer as grpcio writes it, such as `ipv4:1.2.3.4:5` or `ipv6:%5B::1%5D:5`."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    host, _, port = unquote(rest).rpartition(":")
    return peer_address((host.strip("[]"), port))
