"""What the configuration says to the gRPC server."""

from typing import Any

import pytest

from gateway.access.permissions import RPCS
from gateway.runtime.config_parser import parse
from gateway.runtime.edge import SelectedMethods, server_options

MIB = 1 << 20


def test_the_servers_byte_budgets_follow_the_workers() -> None:
    assert server_options(parse({}, {}, {})).max_inflight_bytes == 512 * MIB
    little = parse({"max-in-flight-bytes": str(8 * MIB), "max-message-bytes": str(MIB)}, {}, {})
    assert server_options(little).max_inflight_bytes == 4 * MIB
    # However little it is, the largest message has room.
    least = parse({"max-in-flight-bytes": str(8 * MIB), "max-message-bytes": str(6 * MIB)}, {}, {})
    assert server_options(least).max_inflight_bytes == 6 * MIB


def test_connections_of_one_address_are_limited() -> None:
    assert server_options(parse({}, {}, {})).max_connections_per_address == 1024
    assert server_options(parse({"max-connections-per-address": "0"}, {}, {})).max_connections_per_address == 0


class Registered:
    """A server that remembers which methods it was given."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        self.paths |= {f"/{service_name}/{name}" for name in method_handlers}


def test_a_method_that_a_library_added_to_health_is_not_served_and_stops_no_start() -> None:
    """`List` came with grpcio-health-checking 1.84."""
    server: Any = Registered()
    handler: Any = object()
    chosen = SelectedMethods(server, lambda path: True)
    chosen.add_registered_method_handlers(
        "grpc.health.v1.Health", dict.fromkeys(("Check", "Watch", "ListAll"), handler)
    )
    assert server.paths == {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"} <= set(RPCS)
    with pytest.raises(TypeError, match=r"who may call it: /gateway\.v1\.Control/New"):  # one of ours
        chosen.add_registered_method_handlers("gateway.v1.Control", {"New": handler})
