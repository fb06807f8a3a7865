"""grpc.health.v1: the server as a whole, the inference service, and each model as `model/<name>`.

Source: gRPC health checking protocol.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.api.naming import shown
from gateway.errors import GatewayError, NotFound, ResourceExhausted, Unavailable, VersionNotReady
from gateway.serving.catalog import Catalog
from gateway.serving.ensemble_loads import check_ready
from gateway.serving.version import Version

INFERENCE = "inference.GRPCInferenceService"
MODEL_PREFIX = "model/"
MAX_WATCHERS = 1024
_Response = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers from the present state, and tells watchers of changes.

    Order: changes of versions are heard of from the catalog; who changes what `ready` answers by other means calls
           `changed` afterwards. Where nothing is admitted no model serves, whatever the catalog says.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        ready: Callable[[], bool] | None = None,
        admits: Callable[[], bool] = lambda: True,
        max_watchers: int = MAX_WATCHERS,
    ) -> None:
        self._catalog = catalog
        self._ready = ready or catalog.ready
        self._admits = admits
        self._max_watchers = max_watchers
        self._watchers = 0
        self._draining = False
        self._next_change = asyncio.Event()
        loop = asyncio.get_running_loop()

        # Not at once: the catalog is in the middle of the change.
        def heard(_: Version) -> None:
            loop.call_soon(self.changed)

        catalog.subscribe(heard)

    @property
    def watchers(self) -> int:
        """Returns how many Watch calls are open."""
        return self._watchers

    def changed(self) -> None:
        """Makes every watcher look again."""
        change, self._next_change = self._next_change, asyncio.Event()
        change.set()

    def drain(self) -> None:
        """Reports everything as not serving from now on, whatever the catalog says."""
        self._draining = True
        self.changed()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: object) -> health_pb2.HealthCheckResponse:
        status = self._status(request.service)
        if status is None:
            raise NotFound(f"service {shown(request.service)} is not known to this server")
        return _Response(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: object
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        if self._watchers >= self._max_watchers:
            raise ResourceExhausted(f"{self._watchers} watches are open, the limit is {self._max_watchers}")
        self._watchers += 1
        try:
            told: int | None = None
            while True:
                change = self._next_change
                status = self._status(request.service)
                now: int = _Response.SERVICE_UNKNOWN if status is None else status
                if now != told:
                    told = now
                    yield _Response(status=now)
                await change.wait()
        finally:
            self._watchers -= 1

    def _status(self, service: str) -> int | None:
        if service.startswith(MODEL_PREFIX):
            return self._model(service.removeprefix(MODEL_PREFIX))
        if service in ("", INFERENCE):
            return self._serving(self._ready())
        return None

    def _model(self, model: str) -> int | None:
        try:
            check_ready(self._catalog, self._catalog.newest(model))
        except (Unavailable, VersionNotReady):
            return self._serving(False)
        except GatewayError:
            return None
        return self._serving(self._admits())

    def _serving(self, serving: bool) -> int:
        status: int = _Response.SERVING if serving and not self._draining else _Response.NOT_SERVING
        return status
