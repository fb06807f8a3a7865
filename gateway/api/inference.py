"""The servicer of inference.GRPCInferenceService: each method translates, asks, and translates back."""

from collections.abc import AsyncIterator, Callable

from gateway.access.quotas import Quotas
from gateway.api import model_metadata, repository_extension, settings, statistics_extension
from gateway.api.exchange import Exchanges
from gateway.api.extensions import server_metadata
from gateway.api.feedback_token import Tokens
from gateway.api.infer_stream import MAX_IN_FLIGHT, StreamContext, Streams
from gateway.api.load_reports import LoadReports
from gateway.api.naming import shown
from gateway.api.repository_extension import Calling, ModelControl
from gateway.api.statistics_extension import Counts
from gateway.api.wire import leading_names
from gateway.errors import NotFound, Unimplemented
from gateway.pb import inference_pb2 as pb
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceServicer
from gateway.rpc.handler import CallbackContext, UnreadCall, announced_to, by_callback, undecoded
from gateway.serving.arrivals import Arrival
from gateway.serving.catalog import Catalog
from gateway.serving.engine import Engine

_SHARED_MEMORY = "shared memory is not supported: send the data in the message"


class InferenceService(GRPCInferenceServiceServicer):
    """Serves Open Inference Protocol v2 and the extensions that Triton's clients call, on the loop that it was made on.

    Units:  `max_answer_bytes` is the largest message that may be sent, `default_timeout_s` bounds a streamed request
            whose stream has no deadline, `max_stream_requests` are the requests of one stream in flight.
    With `tokens` every answer to a unary request carries a feedback token, with `load_reports` the worker's load; with
    `quotas` each request has to be let in.
    """

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        *,
        repository: ModelControl,
        counts: Counts,
        max_answer_bytes: int,
        default_timeout_s: float = 30.0,
        max_stream_requests: int = MAX_IN_FLIGHT,
        ready: Callable[[], bool] | None = None,
        admits: Callable[[], bool] = lambda: True,
        tokens: Tokens | None = None,
        quotas: Quotas | None = None,
        load_reports: LoadReports | None = None,
    ) -> None:
        self._catalog = catalog
        self._repository = repository
        self._counts = counts
        self._ready = ready or catalog.ready
        self._admits = admits
        self._exchanges = Exchanges(
            engine,
            max_answer_bytes=max_answer_bytes,
            default_timeout_s=default_timeout_s,
            tokens=tokens,
            quotas=quotas,
            load_reports=load_reports,
        )
        self._streams = Streams(self._exchanges, limit=max_stream_requests, quotas=quotas)

    @property
    def exchanges(self) -> Exchanges:
        """Through which every inference request goes, whatever brought it."""
        return self._exchanges

    # ---- inference ----

    @announced_to("announced", leading_names)
    @by_callback
    def ModelInfer(self, message: bytes | memoryview, context: CallbackContext) -> None:
        self._exchanges.infer(message, context)

    def announced(self, context: UnreadCall, size_bytes: int, lead: bytes) -> Arrival | None:
        """Refuses a long message at its beginning, if it is known by then that it would be refused at its end.

        Returns the call on its way, if it is known who serves it.
        """
        return self._exchanges.announced(context, size_bytes, lead)

    @undecoded
    def ModelStreamInfer(
        self, requests: AsyncIterator[bytes | memoryview], context: StreamContext
    ) -> AsyncIterator[bytes]:
        return self._streams.serve(requests, context)

    # ---- server and models ----

    async def ServerLive(self, request: pb.ServerLiveRequest, context: object) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: object) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._ready())

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: object) -> pb.ServerMetadataResponse:
        return server_metadata()

    async def ModelReady(self, request: pb.ModelReadyRequest, context: object) -> pb.ModelReadyResponse:
        return (
            model_metadata.model_ready(self._catalog, request) if self._admits() else pb.ModelReadyResponse(ready=False)
        )

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: object) -> pb.ModelMetadataResponse:
        return model_metadata.model_metadata(self._catalog, request)

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: object) -> pb.ModelConfigResponse:
        return model_metadata.model_config(self._catalog, request)

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: object) -> pb.ModelStatisticsResponse:
        return await statistics_extension.model_statistics(self._catalog, self._counts, request)

    # ---- repository ----

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: object) -> pb.RepositoryIndexResponse:
        return repository_extension.index(self._catalog, request)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Calling
    ) -> pb.RepositoryModelLoadResponse:
        return await repository_extension.load(self._repository, request, context)

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Calling
    ) -> pb.RepositoryModelUnloadResponse:
        return await repository_extension.unload(self._repository, self._catalog, request, context)

    # ---- settings ----

    async def TraceSetting(self, request: pb.TraceSettingRequest, context: object) -> pb.TraceSettingResponse:
        if request.model_name:
            model_metadata.find(self._catalog, request.model_name, "")
        return settings.trace_settings(request)

    async def LogSettings(self, request: pb.LogSettingsRequest, context: object) -> pb.LogSettingsResponse:
        return settings.log_settings(request)

    # ---- shared memory: never any, so nothing to show and nothing to take away ----

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: object
    ) -> pb.SystemSharedMemoryStatusResponse:
        _check_region(request.name)
        return pb.SystemSharedMemoryStatusResponse()

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, context: object
    ) -> pb.SystemSharedMemoryRegisterResponse:
        raise Unimplemented(_SHARED_MEMORY)

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: object
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest, context: object
    ) -> pb.CudaSharedMemoryStatusResponse:
        _check_region(request.name)
        return pb.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryRegister(
        self, request: pb.CudaSharedMemoryRegisterRequest, context: object
    ) -> pb.CudaSharedMemoryRegisterResponse:
        raise Unimplemented(_SHARED_MEMORY)

    async def CudaSharedMemoryUnregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: object
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        return pb.CudaSharedMemoryUnregisterResponse()


def _check_region(name: str) -> None:
    if name:
        raise NotFound(f"Unable to find shared memory region: {shown(name)}")
