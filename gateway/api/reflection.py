"""gRPC server reflection, in both of its versions, over the gateway's own descriptor pool.

The generated messages of the gateway live in a pool of their own, those of health and reflection in the default one;
the reflection servicer is given a view of both.
"""

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.pb import control_pb2, inference_pb2, pool, tensorflow_serving_pb2
from gateway.rpc.server import Server

# The two versions of the protocol differ in their package only: newer tools ask for v1, older ones for v1alpha.
REFLECTION_SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class Pools:
    """Looks a name up in the gateway's pool, then in the default one."""

    def __init__(self) -> None:
        self._pools = (pool.Default(), descriptor_pool.Default())

    def FindFileByName(self, name: str) -> Any:
        return self._first(lambda pool: pool.FindFileByName(name))

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        return self._first(lambda pool: pool.FindFileContainingSymbol(symbol))

    def FindMessageTypeByName(self, name: str) -> Any:
        return self._first(lambda pool: pool.FindMessageTypeByName(name))

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:
        return self._first(lambda pool: pool.FindExtensionByNumber(message, number))

    def FindAllExtensions(self, message: Any) -> list[Any]:
        return list(message.file.pool.FindAllExtensions(message))

    def _first(self, find: Callable[[Any], Any]) -> Any:
        for descriptors in self._pools:
            try:
                return find(descriptors)
            except KeyError:
                continue
        raise KeyError("no such descriptor")


def service_names() -> tuple[str, ...]:
    """Returns the services that a worker serves."""
    modules = (inference_pb2, tensorflow_serving_pb2, control_pb2, health_pb2)
    names = [service.full_name for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    return (*names, *REFLECTION_SERVICES)


def add_reflection(server: Server, names: Iterable[str] | None = None) -> None:
    """Makes the server describe the named services (all of ours if none are named) to whoever asks."""
    listed = service_names() if names is None else names
    servicer = reflection.aio.ReflectionServicer(listed, pool=Pools())  # type: ignore[attr-defined]
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for service in REFLECTION_SERVICES:
        handlers = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_registered_method_handlers(service, handlers)
