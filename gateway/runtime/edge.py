"""The servicers of a worker on the transport that was chosen: the one place that knows all of them."""

from dataclasses import dataclass

from grpc_health.v1 import health_pb2_grpc

from gateway.access.permissions import RPCS, check_registered
from gateway.access.quotas import Quotas
from gateway.api.control_service import ControlService
from gateway.api.health import HealthService
from gateway.api.inference import InferenceService
from gateway.api.model_guard import ModelGuard
from gateway.api.reflection import add_reflection
from gateway.pb import control_pb2_grpc, inference_pb2_grpc
from gateway.rpc.authorizer import Authorizer
from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import Server, ServerOptions
from gateway.runtime.config import Config


@dataclass(frozen=True, slots=True)
class Servicers:
    """What a worker serves, beside reflection."""

    inference: InferenceService
    control: ControlService
    health: HealthService


def make_server(
    config: Config, servicers: Servicers, authorizer: Authorizer | None = None, quotas: Quotas | None = None
) -> Server:
    """Returns a server with every servicer, not started yet. With an authorizer callers are checked, with quotas their
    inference requests are counted.

    Raises: TypeError if the table of permissions misses a method.
    """
    options = server_options(config)
    make = Ngh2Server if config.listen.transport == "ngh2" else GrpcioServer
    server: Server = make(options, authorizer, quotas)
    if authorizer is not None:
        guard = ModelGuard(servicers.control.model_of_draft)
        guard.guard(servicers.inference, "inference.GRPCInferenceService")
        guard.guard(servicers.control, "gateway.v1.Control")
        guard.guard(servicers.health, "grpc.health.v1.Health")
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicers.inference, server)  # type: ignore[no-untyped-call]
    control_pb2_grpc.add_ControlServicer_to_server(servicers.control, server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(servicers.health, server)
    if config.listen.reflection:
        add_reflection(server)
    check_registered(server.paths(), RPCS)
    return server


def server_options(config: Config) -> ServerOptions:
    """Returns what the configuration says of the gRPC server."""
    listen = config.listen
    return ServerOptions(
        host=listen.host,
        port=listen.grpc_port,
        max_receive_bytes=listen.max_message_bytes,
        max_send_bytes=listen.max_message_bytes,
        # A half for messages that come, a half for answers that wait; each has room for the largest.
        max_inflight_bytes=max(config.limits.max_in_flight_bytes // 2, listen.max_message_bytes),
        max_connections=listen.max_connections,
        max_connections_per_address=listen.max_connections_per_address,
        busy_poll_us=listen.busy_poll_microseconds,
        default_deadline_s=config.limits.default_deadline_seconds,
        tls=config.tls.files,
    )
