"""What a connection of HTTP/1.1 is allowed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Http1Limits:
    """What a connection of HTTP/1.1 is allowed beside what `ServerOptions` say.

    A head has to be whole `head_timeout_s` after its first byte; a body has to bring `body_bytes`, or its end, in each
    `body_timeout_s`. A client that takes nothing of an answer for `send_timeout_s` has gone. Up to `drained_bytes` of a
    body that was refused are read over, after which the connection goes on; one that ends is read for `linger_s` so
    that nothing that comes late destroys the answer that is on its way.
    """

    max_pipelined: int = 16
    head_timeout_s: float = 10.0
    body_timeout_s: float = 10.0
    body_bytes: int = 16 * 1024
    send_timeout_s: float = 60.0
    drained_bytes: int = 8 << 20
    linger_s: float = 2.0
    # A connection that was used a moment ago is used again in a moment, most likely; the request must not be lost.
    settle_s: float = 1.0
