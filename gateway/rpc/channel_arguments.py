"""The options of a server as grpcio's library takes them."""

from typing import Final

from gateway.rpc.server import ServerOptions

# What a stream may have sent while nobody reads it. A message that is read has a window of its own size.
_UNREAD_BYTES: Final = 256 * 1024
# The library's own limit of calls is a second line: it refuses without saying when to come again.
CALLS_BEYOND: Final = 1024


def channel_arguments(options: ServerOptions) -> list[tuple[str, int]]:
    """Returns grpcio's arguments for our options.

    Compressed messages are left as they came, so that their content is counted before it is made. Windows do not grow
    with the bandwidth: 16 MiB for each stream that nobody reads yet would be without a bound. Without
    `http2.ping_timeout_ms` a peer that vanished stays connected far longer than the keepalive timeout says.
    """
    return [
        ("grpc.max_receive_message_length", options.max_receive_bytes),
        ("grpc.max_send_message_length", options.max_send_bytes),
        ("grpc.max_concurrent_streams", options.max_concurrent_streams),
        ("grpc.max_allowed_incoming_connections", options.max_connections),
        ("grpc.max_metadata_size", options.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", 2 * options.max_metadata_bytes),
        ("grpc.server_handshake_timeout_ms", _ms(options.handshake_timeout_s)),
        ("grpc.max_connection_idle_ms", _ms(options.idle_timeout_s)),
        ("grpc.max_connection_age_ms", _ms(options.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _ms(options.age_grace_s)),
        ("grpc.keepalive_time_ms", _ms(options.keepalive_time_s)),
        ("grpc.keepalive_timeout_ms", _ms(options.keepalive_timeout_s)),
        ("grpc.http2.ping_timeout_ms", _ms(options.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(options.min_ping_interval_s)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(options.min_ping_interval_s)),
        ("grpc.http2.max_ping_strikes", options.max_ping_strikes),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _UNREAD_BYTES),
        # Identity, deflate and gzip.
        ("grpc.compression_enabled_algorithms_bitset", 0b111),
        ("grpc.per_message_decompression", 0),
        ("grpc.so_reuseport", int(options.reuse_port)),
    ]


def _ms(seconds: float) -> int:
    return max(1, min(round(seconds * 1000), 2**31 - 1))
