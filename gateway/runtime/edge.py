"""The servicers of a worker on the transport that was chosen: the one place that knows all of them."""

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from grpc_health.v1 import health_pb2_grpc

from gateway.access.permissions import RPCS, check_registered
from gateway.access.principal import Role
from gateway.access.quotas import Quotas
from gateway.api.control_service import ControlService
from gateway.api.health import HealthService
from gateway.api.inference import InferenceService
from gateway.api.load_streams import LoadStreams
from gateway.api.model_guard import ModelGuard
from gateway.api.reflection import REFLECTION_SERVICES, add_reflection
from gateway.api.tfserving.prediction_service import TfModelService, TfPredictionService
from gateway.pb import control_pb2_grpc, inference_pb2_grpc, orca_service_pb2_grpc, tensorflow_serving_pb2_grpc
from gateway.rest.endpoint import EndpointMatch, EndpointTable
from gateway.rest.http_refusal import HttpRefusal
from gateway.rest.rest_front import RestFront
from gateway.rest.rest_service import RestService
from gateway.rpc.authorizer import Authorizer
from gateway.rpc.grpcio import GrpcioServer
from gateway.rpc.handler import GenericHandler, RpcHandler
from gateway.rpc.message import ByteBudgets, byte_budgets
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import Server, ServerOptions
from gateway.runtime.config import Config
from gateway.serving.catalog import Catalog

_INFERENCE: Final = "inference.GRPCInferenceService"
_CONTROL: Final = "gateway.v1.Control"
_HEALTH: Final = "grpc.health.v1.Health"
_TF_PREDICTION: Final = "tensorflow.serving.PredictionService"
_TF_MODEL: Final = "tensorflow.serving.ModelService"
_OF_OTHERS: Final = frozenset({_HEALTH})  # services whose code comes with a library


@dataclass(frozen=True, slots=True)
class Servicers:
    """What a worker serves, beside reflection."""

    inference: InferenceService
    control: ControlService
    health: HealthService
    catalog: Catalog
    tf_prediction: TfPredictionService
    tf_model: TfModelService
    load_streams: LoadStreams


def servicers_of(
    config: Config, inference: InferenceService, control: ControlService, health: HealthService, catalog: Catalog
) -> Servicers:
    """Returns the servicers, TensorFlow Serving's among them, which ask the same exchanges as `inference` does."""
    max_bytes = config.listen.max_message_bytes
    load_streams = LoadStreams(inference.exchanges.load_reports)
    tf_prediction = TfPredictionService(inference.exchanges, catalog, max_bytes=max_bytes)
    return Servicers(inference, control, health, catalog, tf_prediction, TfModelService(catalog), load_streams)


class _ForApplications:
    """A table of endpoints without those that are for operators."""

    def __init__(self, table: EndpointTable) -> None:
        self._table = table

    def find(self, method: str, path: str) -> EndpointMatch | HttpRefusal:
        match = self._table.find(method, path)
        if isinstance(match, EndpointMatch) and not is_for_applications(match.endpoint.permission):
            return HttpRefusal(404, "this is served to operators, at an address of their own, over gRPC")
        return match

    def permissions(self) -> Iterable[str]:
        return self._table.permissions()


class SelectedMethods:
    """Passes on to a server those methods of generated code that `wanted` picks by their paths."""

    def __init__(self, server: Server, wanted: Callable[[str], bool]) -> None:
        self._server = server
        self._wanted = wanted

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[GenericHandler]) -> None:
        """Passes on none: they would serve the whole service."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, RpcHandler]) -> None:
        by_path = {f"/{service_name}/{name}": name for name in method_handlers}
        if service_name in _OF_OTHERS:  # a newer release may have more methods: UNIMPLEMENTED, until they have a line
            by_path = {path: name for path, name in by_path.items() if path in RPCS}
        check_registered(by_path, RPCS)
        picked = {name: method_handlers[name] for path, name in by_path.items() if self._wanted(path)}
        self._server.add_registered_method_handlers(service_name, picked)


def guard_servicers(servicers: Servicers) -> None:
    """Makes the servicers check their callers. Order: once, before any server is made of them."""
    guard = ModelGuard(servicers.control.model_of_draft)
    guard.guard(servicers.inference, _INFERENCE)
    guard.guard(servicers.control, _CONTROL)
    guard.guard(servicers.health, _HEALTH)
    guard.guard(servicers.tf_prediction, _TF_PREDICTION)
    guard.guard(servicers.tf_model, _TF_MODEL)


def make_server(
    config: Config,
    servicers: Servicers,
    authorizer: Authorizer | None = None,
    quotas: Quotas | None = None,
    *,
    on_unread: Callable[[int], None] | None = None,
    on_progress: Callable[[], None] | None = None,
    budgets: ByteBudgets | None = None,
    listening: socket.socket | None = None,
) -> Server:
    """Returns the server of the gRPC port, not started yet: with every method, or with those of applications where
    operators have an address of their own. With an authorizer callers are checked, with quotas their
    inference requests are counted.

    `on_unread` is told by how many bytes the answers that clients have not read become more, or fewer; on ngh2 those
    are what the `budgets` count, if they are given. `on_progress` is told of what is taken in (grpcio). `listening` is
    a socket that the process was given (ngh2).

    Raises: TypeError if the table of permissions misses a method.
    """
    options = replace(server_options(config), on_unread=on_unread, on_progress=on_progress, budgets=budgets)
    server: Server
    if config.listen.transport == "ngh2":
        front = rest_front(config, servicers) if config.listen.single_port else None
        server = Ngh2Server(options, authorizer, quotas, listening, front=front)
    else:
        server = GrpcioServer(options, authorizer, quotas)
    _add(config, servicers, server, is_for_applications if config.listen.control_apart else lambda _: True)
    return server


def make_rest_server(
    config: Config,
    servicers: Servicers,
    authorizer: Authorizer | None = None,
    quotas: Quotas | None = None,
    *,
    budgets: ByteBudgets | None = None,
    listening: socket.socket | None = None,
) -> Server | None:
    """Returns the server of REST's own port, not started yet; None where there is none. It is on ngh2.

    Raises: TypeError as `make_server` does.
    """
    listen = config.listen
    if not listen.rest_apart:
        return None
    options = replace(server_options(config), port=listen.http_port, budgets=budgets)
    return Ngh2Server(options, authorizer, quotas, listening, front=rest_front(config, servicers))


def rest_front(config: Config, servicers: Servicers) -> RestFront:
    """Returns what serves REST, to applications alone where operators have an address of their own.

    Raises: TypeError if the table of permissions misses one of an endpoint.
    """
    service = RestService(servicers.inference, servicers.catalog, max_body_bytes=config.listen.max_message_bytes)
    table = service.table()
    return RestFront(_ForApplications(table) if config.listen.control_apart else table)


def make_control_server(
    config: Config,
    servicers: Servicers,
    authorizer: Authorizer | None = None,
    *,
    listening: socket.socket | None = None,
) -> Server | None:
    """Returns the server of operators' own address, not started yet; None where they have none. It is on ngh2.

    Raises: TypeError as `make_server` does.
    """
    listen = config.listen
    if not listen.control_apart:
        return None
    options = replace(server_options(config), port=max(listen.control_port, 0))
    if listen.control_socket is not None:
        options = replace(options, tls=None)
    server = Ngh2Server(options, authorizer, listening=listening)
    _add(config, servicers, server, is_for_operators)
    return server


def is_for_applications(path: str) -> bool:
    """Whether a method stays at the gRPC port where operators have an address of their own."""
    roles = RPCS[path].roles
    return not roles or Role.INFER in roles or (path.startswith(f"/{_INFERENCE}/") and Role.READER in roles)


def is_for_operators(path: str) -> bool:
    return RPCS[path].is_open or not is_for_applications(path) or path.startswith(f"/{_CONTROL}/")


def _add(config: Config, servicers: Servicers, server: Server, wanted: Callable[[str], bool]) -> None:
    part: Any = SelectedMethods(server, wanted)
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicers.inference, part)  # type: ignore[no-untyped-call]
    control_pb2_grpc.add_ControlServicer_to_server(servicers.control, part)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(servicers.health, part)
    tensorflow_serving_pb2_grpc.add_PredictionServiceServicer_to_server(servicers.tf_prediction, part)  # type: ignore[no-untyped-call]
    tensorflow_serving_pb2_grpc.add_ModelServiceServicer_to_server(servicers.tf_model, part)  # type: ignore[no-untyped-call]
    orca_service_pb2_grpc.add_OpenRcaServiceServicer_to_server(servicers.load_streams, part)  # type: ignore[no-untyped-call]
    if config.listen.reflection:
        add_reflection(server, _services(server))
    check_registered(server.paths(), RPCS)


def _services(server: Server) -> tuple[str, ...]:
    """Returns the services that the server serves methods of, and those of reflection."""
    return (*dict.fromkeys(path.split("/")[1] for path in server.paths()), *REFLECTION_SERVICES)


def shared_budgets(config: Config, on_unread: Callable[[int], None]) -> ByteBudgets:
    """Returns what all servers of applications may hold together."""
    return byte_budgets(server_options(config).max_inflight_bytes, on_unread)


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
