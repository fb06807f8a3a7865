"""The control service as the command line calls it."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from gateway.cli.exits import Exit, Failure
from gateway.cli.tls import PLAIN, ClientTls, chosen
from gateway.pb import control_pb2_grpc

CONNECT_S = 5.0


@contextmanager
def control(server: str) -> Iterator[control_pb2_grpc.ControlStub]:
    """The control service at `server` (host:port).

    Raises: Failure (nobody answers there; the server refuses; the time is over).
    """
    with connected(server) as channel:
        yield control_pb2_grpc.ControlStub(channel)  # type: ignore[no-untyped-call]


@contextmanager
def connected(server: str) -> Iterator[grpc.Channel]:
    """A channel that is connected to `server` (host:port).

    Raises: Failure (nobody answers there; the server refuses; the time is over).
    """
    tls = chosen.get()
    with tls.channel(server) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_S)
        except grpc.FutureTimeoutError:
            raise Failure(
                Exit.UNREACHABLE,
                f"no gateway answers at {server}: {_hint(tls)}",
            ) from None
        try:
            yield channel
        except grpc.RpcError as error:
            raise _failure(error) from None


def _hint(tls: ClientTls) -> str:
    if tls == PLAIN:
        return "start one with `gateway serve`, or name it with --server; one that speaks TLS needs --tls-ca"
    return "is it a gateway, does it speak TLS, is its certificate for that name and signed by what --tls-ca names?"


def _failure(error: grpc.RpcError) -> Failure:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    text = (error.details() if isinstance(error, grpc.Call) else None) or str(error)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure(Exit.TIMED_OUT, text)
    return Failure(Exit.REFUSED, f"{code.name}: {text}")
