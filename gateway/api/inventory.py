"""The inventory: model versions, workers, the server itself."""

import platform

import gateway
from gateway.api.plans import Fleet
from gateway.api.readiness import version_message
from gateway.api.route_messages import worker_message
from gateway.pb import control_pb2 as pb
from gateway.routing.store.route_control import RouteControl
from gateway.serving.catalog import Catalog
from gateway.serving.session import ort_version


class Inventory:
    """Serves Models, Workers and ServerVersion."""

    def __init__(self, control: RouteControl, catalog: Catalog, fleet: Fleet, *, worker: str, transport: str) -> None:
        self._control = control
        self._catalog = catalog
        self._fleet = fleet
        self._worker = worker
        self._transport = transport

    async def models(self, request: pb.ModelsRequest, context: object) -> pb.ModelsResponse:
        own = self._catalog.states(request.model or None)
        elsewhere = await self._fleet.versions(request.model)
        passed_over = [
            pb.PassedOver(path=path, reason=reason)
            for path, reason in sorted(self._catalog.passed_over().items())
            if request.model in ("", path.partition("/")[0])
        ]
        pins = [
            pb.StepPin(model=pin.model, version=pin.version, ensemble=pin.ensemble, step=pin.step, source=pin.origin)
            for pin in self._catalog.step_pins()
            if request.model in ("", pin.model)
        ]
        versions = [version_message(self._catalog, status, elsewhere) for status in own]
        return pb.ModelsResponse(versions=versions, passed_over=passed_over, pins=pins, trouble=self._catalog.trouble)

    async def workers(self, request: pb.WorkersRequest, context: object) -> pb.WorkersResponse:
        workers, revision = await self._control.workers()
        return pb.WorkersResponse(
            revision=revision,
            workers=[worker_message(worker) for worker in workers],
        )

    async def server_version(self, request: pb.ServerVersionRequest, context: object) -> pb.ServerVersionResponse:
        return pb.ServerVersionResponse(
            version=gateway.__version__,
            worker=self._worker,
            python=platform.python_version(),
            onnxruntime=ort_version(),
            transport=self._transport,
        )
