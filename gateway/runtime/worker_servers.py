"""The servers of a worker: the gRPC port's, operators' own address, and REST's port."""

import asyncio
from collections.abc import Callable

from gateway.access.entrance import Entrance
from gateway.access.quotas import Quotas
from gateway.rpc.server import Server
from gateway.runtime.child import Settings
from gateway.runtime.edge import (
    Servicers,
    guard_servicers,
    make_control_server,
    make_rest_server,
    make_server,
    shared_budgets,
)
from gateway.runtime.worker_gauges import connection_counts


class WorkerServers:
    """Holds them from the making to the stop. With an `entrance` callers are checked, with `quotas` counted.

    `on_unread` is told by how many bytes the answers that clients have not read become more, or fewer, `on_progress`
    of what is taken in.
    """

    def __init__(
        self,
        settings: Settings,
        servicers: Servicers,
        entrance: Entrance | None,
        quotas: Quotas | None,
        *,
        on_unread: Callable[[int], None],
        on_progress: Callable[[], None],
    ) -> None:
        """Raises: TypeError if the table of permissions misses a method."""
        config, authorizer = settings.config, None
        if entrance is not None:
            authorizer = entrance.gatekeeper
            guard_servicers(servicers)
        budgets = shared_budgets(config, on_unread)
        self._load_streams = servicers.load_streams
        inherited = settings.inherited
        self.grpc = make_server(
            config,
            servicers,
            authorizer,
            quotas,
            on_unread=on_unread,
            on_progress=on_progress,
            budgets=budgets,
            listening=inherited("grpc-port"),
        )
        self.rest = make_rest_server(
            config, servicers, authorizer, quotas, budgets=budgets, listening=inherited("http-port")
        )
        own = "control-socket" if config.listen.control_socket is not None else "control-port"
        self._control = make_control_server(config, servicers, authorizer, listening=inherited(own))

    async def start(self) -> None:
        """Listens at every address, the gRPC port's first."""
        for server in (self.grpc, self._control, self.rest):
            if server is not None:
                await server.start()

    def drain(self) -> None:
        """Ends the streams that would never end by themselves."""
        self._load_streams.drain()

    async def stop(self, grace_s: float) -> None:
        """Returns once no call is running any more: each has so long to end."""
        async with asyncio.TaskGroup() as group:
            for server in (self.grpc, self._control, self.rest):
                if server is not None:
                    group.create_task(server.stop(grace_s))

    def of_applications(self) -> tuple[Server, Server | None]:
        """Returns the gRPC port's server, and REST's where it has a port of its own."""
        return self.grpc, self.rest

    def connections(self) -> dict[str, object]:
        """Returns how many connections of applications came, were refused and broke."""
        counts = connection_counts(*self.of_applications())
        return {outcome: counts[outcome] for outcome in ("accepted", "refused", "broken") if outcome in counts}
