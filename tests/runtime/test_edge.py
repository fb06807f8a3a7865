"""What the configuration says to the gRPC server."""

from gateway.runtime.config_parser import parse
from gateway.runtime.edge import server_options

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
