"""The interface of every transport, and the limits that all of them keep."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.rpc.handler import GenericHandler, RpcHandler
from gateway.rpc.message import ByteBudgets
from gateway.rpc.server_certificate import ServerCertificate, TlsFiles

MIB = 1 << 20
MAX_FIELDS: Final = 256  # metadata of one request


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Holds the address of a server, and what it allows.

    Units: names carry them. `port` 0 lets the system choose. A limit on connections, streams or calls is per process.
           `max_connections_per_address` counts an IPv4 address or an IPv6 /64 network; 0: no limit of its own; unix
           sockets have none; grpcio counts the connections that have calls. A server that is full and `makes_room` (not
           grpcio) ends a connection of the address with the most for one of an address with fewer. `max_inflight_bytes`
           bounds the messages that came in parts and are not yet answered, with the content of compressed ones; and
           once more the answers that clients have not read, of which `on_unread` is told by how many bytes more, or
           fewer, they are; servers with the same `budgets` share them (not grpcio). While hardly any of that is left,
           who holds some and does not move on for `stall_timeout_s` loses it (of grpcio: see `open_calls`).
           `default_deadline_s` counts for calls answered by callback whose client sets none, `default_task_deadline_s`
           for the other unary ones: loading a model takes as long as it takes. A stream lives at most as long as its
           connection: `max_connection_age_s` (spread by 10 % either way) plus `age_grace_s`. The files of `tls` are
           looked at every `tls_look_s`; what is new in them is for connections that are made then. `busy_poll_us`: see
           `busy_poll`; grpcio has none. `on_progress` is told of each call and message that is taken in (of grpcio): a
           turn of the loop may hold hundreds, and is long then, but does not hang.
    """

    host: str = "127.0.0.1"
    port: int = 0
    reuse_port: bool = True
    max_receive_bytes: int = 64 * MIB
    max_send_bytes: int = 64 * MIB
    max_concurrent_streams: int = 256
    max_concurrent_calls: int = 16 * 1024
    max_connections: int = 1024
    max_connections_per_address: int = 0
    makes_room: bool = False
    max_metadata_bytes: int = 8 * 1024
    handshake_timeout_s: float = 5.0
    idle_timeout_s: float = 300.0
    max_connection_age_s: float = 300.0
    age_grace_s: float = 30.0
    keepalive_time_s: float = 10.0
    keepalive_timeout_s: float = 5.0
    min_ping_interval_s: float = 5.0
    max_ping_strikes: int = 2
    stall_timeout_s: float = 5.0
    default_deadline_s: float = 30.0
    default_task_deadline_s: float = 660.0
    max_inflight_bytes: int = 512 * MIB
    on_unread: Callable[[int], None] | None = None
    on_progress: Callable[[], None] | None = None
    budgets: ByteBudgets | None = None
    busy_poll_us: int = 100
    tls: TlsFiles | None = None
    tls_look_s: float = 5.0


class Server(Protocol):
    """A gRPC server; generated `add_..._to_server` functions take it where they take grpc's own.

    Order: handlers are added before `start`; `port` is known after it. `stop` refuses new calls at once, lets those
           that run end within `grace_s` (None: at once), and returns when every handler has ended.
    """

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[GenericHandler]) -> None: ...

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, RpcHandler]) -> None: ...

    def paths(self) -> Iterable[str]:
        """Returns the paths of all methods that are registered, `/package.Service/Method`."""

    async def start(self) -> None: ...

    async def stop(self, grace_s: float | None) -> None: ...

    @property
    def port(self) -> int: ...

    def counts(self) -> Mapping[str, int]:
        """Returns what metrics say of the connections: `open`, handshakes among them, and since the start those that
        were `accepted`, `refused` for a limit, and `broken` by their peers. Empty where the transport does not tell.
        """

    @property
    def certificate(self) -> ServerCertificate | None:
        """Returns what the server shows, once it is started; None without TLS."""
