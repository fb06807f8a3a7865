"""The command line's connection to the control service."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from time import monotonic

import grpc

from gateway.cli.credential import TOKEN_VARIABLE, Credential
from gateway.cli.exits import Exit, Failure
from gateway.cli.reachability import why_unreachable
from gateway.cli.tls import CONNECTING, PLAIN, Connecting
from gateway.pb import control_pb2_grpc


@contextmanager
def control(server: str) -> Iterator[control_pb2_grpc.ControlStub]:
    """Yields the control service at `server` (host:port).

    Raises: Failure (nobody answers there; the server refuses; the time is over).
    """
    with connected(server) as channel:
        yield control_pb2_grpc.ControlStub(channel)  # type: ignore[no-untyped-call]


@contextmanager
def connected(server: str) -> Iterator[grpc.Channel]:
    """Yields a channel that is connected to `server` (host:port).

    Raises: Failure (nobody answers there; the server refuses; the time is over).
    """
    way = CONNECTING.get(Connecting())
    way.credential.check(server, secure=way.tls != PLAIN)
    with way.tls.channel(server) as channel:
        _connect(channel, server, way)
        try:
            yield way.credential.joined_to(channel)
        except grpc.RpcError as error:
            raise _failure(error, way.credential) from None


def _connect(channel: grpc.Channel, server: str, way: Connecting) -> None:
    """Returns when the channel is connected. Raises: Failure as soon as an attempt fails for a reason that lasts."""
    states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    channel.subscribe(states.put, try_to_connect=True)
    give_up_at = monotonic() + way.limit_s
    reason = ""
    try:
        while not reason:
            state = states.get(timeout=max(0.0, give_up_at - monotonic()))
            if state is grpc.ChannelConnectivity.READY:
                return
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                reason = why_unreachable(server, way)
    except Empty:
        reason = why_unreachable(server, way) or f"no connection within {way.limit_s:g} s"
    finally:
        channel.unsubscribe(states.put)
    raise Failure(Exit.UNREACHABLE, f"no gateway answers at {server}: {reason}")


def _failure(error: grpc.RpcError, credential: Credential) -> Failure:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    text = (error.details() if isinstance(error, grpc.Call) else None) or str(error)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure(Exit.TIMED_OUT, text)
    if code is grpc.StatusCode.UNIMPLEMENTED and text == "Method not found!":
        text = "not served at this address; a gateway with --control-port or --control-socket serves operators there"
    if code is grpc.StatusCode.UNAUTHENTICATED and not credential.token:
        text += f"; a command sends the token of --token-file, or of {TOKEN_VARIABLE} in the environment"
    return Failure(Exit.REFUSED, f"{code.name}: {text}")
