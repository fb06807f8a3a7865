"""The endpoints of applications: inference, health, metadata, the repository, KServe's first protocol.

Inference goes through the same exchanges as over gRPC; everything else calls the RPC that means the same.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple, cast

import orjson

from gateway.access.permissions import RPCS
from gateway.access.principal import ANONYMOUS, Role
from gateway.api import model_metadata
from gateway.api.inference import InferenceService
from gateway.api.load_reports import FORMAT_HEADER
from gateway.api.naming import shown
from gateway.errors import (
    GatewayError,
    Internal,
    InvalidArgument,
    PermissionDenied,
    Unavailable,
    Unimplemented,
    VersionNotReady,
)
from gateway.pb import inference_pb2 as pb
from gateway.rest.cloud_event import VERSION_HEADER, answer_event
from gateway.rest.endpoint import Endpoint
from gateway.rest.http_call import Fields, HttpCall
from gateway.rest.http_refusal import JSON
from gateway.rest.infer_body import InferBodies, InferBody, id_of
from gateway.rest.infer_reply import ReplyForm
from gateway.rest.json_text import read_object
from gateway.rest.other_sites import is_of_another_site, is_own_name
from gateway.rest.path_table import PathTable
from gateway.rest.prediction import infer_object, raw_object
from gateway.rest.rest_call import RestCall
from gateway.rest.rest_caller import RestCaller
from gateway.rest.triton_paths import RPC_PATHS, SERVICE, RpcPath
from gateway.serving.arrivals import Arrival
from gateway.serving.catalog import Catalog
from gateway.serving.ensemble_loads import check_ready
from gateway.tensor import TensorSpec

_JSON_SIZE: Final = "inference-header-content-length"
_PREDICTIONS: Final = ReplyForm(predictions=True)
_MOST_DIGITS: Final = 18
_INFER: Final = f"{SERVICE}ModelInfer"
_LONG_JSON: Final = 256 << 10  # of JSON that is read on a thread: less takes some milliseconds
_LARGE_BODY: Final = 4 << 20  # a configuration, in a request to load
_SMALL_BODY: Final = 64 << 10
_NO_GENERATION: Final = (
    "generation is not served: the models here give one answer to one request; use /v2/models/MODEL/infer"
)
_NO_EXPLANATION: Final = (
    "explanations of models are not served; why a request is routed as it is says "
    "POST /api/v1/routes/MODEL/explain at the operators' port"
)


logger = logging.getLogger(__name__)


class OwnPath(NamedTuple):
    """A path with a handler of its own, and whose permission it has."""

    method: str
    path: str
    rpc: str
    handler: str


# What is more than an RPC in JSON. The handlers are methods of `RestService`.
OWN_PATHS: Final = (
    OwnPath("GET", "/", "ServerLive", "alive"),
    OwnPath("GET", "/healthz", "ServerLive", "live"),
    OwnPath("GET", "/readyz", "ServerReady", "ready"),
    OwnPath("GET", "/v2/health/live", "ServerLive", "live"),
    OwnPath("GET", "/v2/health/ready", "ServerReady", "ready"),
    OwnPath("GET", "/v2/models/{model}/ready", "ModelReady", "model_ready"),
    OwnPath("GET", "/v2/models/{model}/versions/{version}/ready", "ModelReady", "model_ready"),
    OwnPath("POST", "/v2/models/{model}/generate", "ModelInfer", "generate"),
    OwnPath("POST", "/v2/models/{model}/versions/{version}/generate", "ModelInfer", "generate"),
    OwnPath("POST", "/v2/models/{model}/generate_stream", "ModelInfer", "generate"),
    OwnPath("POST", "/v2/models/{model}/versions/{version}/generate_stream", "ModelInfer", "generate"),
    OwnPath("GET", "/v2/models", "RepositoryIndex", "list_models"),
    OwnPath("GET", "/v1/models", "RepositoryIndex", "list_models"),
    OwnPath("GET", "/v1/models/{model}", "ModelReady", "model_ready"),
    OwnPath("POST", "/v1/models/{model}:explain", "ModelInfer", "explain"),
)
INFER_PATHS: Final = (
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
)
PREDICT_PATHS: Final = ("/v1/models/{model}:predict", "/v1/models/{model}/versions/{version}:predict")


class RestService:
    """Serves what `inference` serves, on the same loop. Units: `max_body_bytes` bounds a body, inflated."""

    def __init__(self, inference: InferenceService, catalog: Catalog, *, max_body_bytes: int) -> None:
        self._inference = inference
        self._exchanges = inference.exchanges
        self._catalog = catalog
        self._max_body_bytes = max_body_bytes
        self._bodies = InferBodies()

    def table(self) -> PathTable:
        """Returns the endpoints of this service by their paths."""
        endpoints: dict[tuple[str, str], Endpoint] = {}
        for row in RPC_PATHS:
            limit = _LARGE_BODY if row.rpc == "RepositoryModelLoad" else _SMALL_BODY
            endpoints[row.method, row.path] = Endpoint(self._rpc(row), SERVICE + row.rpc, max_body_bytes=limit)
        for own in OWN_PATHS:
            limit = self._max_body_bytes if own.method == "POST" else _SMALL_BODY
            endpoints[own.method, own.path] = Endpoint(
                getattr(self, own.handler), SERVICE + own.rpc, max_body_bytes=limit
            )
        for paths, handler in ((INFER_PATHS, self.infer), (PREDICT_PATHS, self.predict)):
            for path in paths:
                endpoints["POST", path] = Endpoint(
                    handler,
                    _INFER,
                    by_callback=True,
                    max_body_bytes=self._max_body_bytes,
                    by_quota=True,
                    announced=self._announced,
                )
        return PathTable(endpoints)

    # ---- inference ----

    def infer(self, asked: HttpCall) -> None:
        """Answers an inference request of the second protocol."""
        call = cast(RestCall, asked)  # both transports', whose attributes are at hand in compiled code
        body = call.body
        try:
            names = call.names
            model, version = names[0], names[1] if len(names) > 1 else ""
            self._exchanges.enter(model, call, call.message_size)
            json_size = _json_size(call.head.fields.get(_JSON_SIZE))
            if json_size == 0 and len(body):
                given, data = raw_object(self._inputs(call, model, version), body)
                read = self._bodies.of_object(model, version, given, data)
            elif (len(body) if json_size < 0 else json_size) > _LONG_JSON:
                work = partial(self._bodies.read, model, version, body, json_size)
                self._exchanges.aside(work, partial(self._was_read, call, None, ()))
                return
            else:
                read = self._bodies.read(model, version, body, json_size)
        except GatewayError as error:
            call.fail(error, _id_field(body))
            return
        self._begin(call, read, read.form)

    def predict(self, asked: HttpCall) -> None:
        """Answers an inference request of KServe's first protocol."""
        call = cast(RestCall, asked)
        try:
            model, version = _named(call)
            event = answer_event(model) if call.header(VERSION_HEADER) else ()
            self._exchanges.enter(model, call, call.message_size)
            if len(call.body) > _LONG_JSON:
                work = partial(self._prediction, call, model, version)
                self._exchanges.aside(work, partial(self._was_read, call, _PREDICTIONS, event))
                return
            read = self._prediction(call, model, version)
        except GatewayError as error:
            call.fail(error)
            return
        self._begin(call, read, _PREDICTIONS, event)

    def _prediction(self, call: RestCall, model: str, version: str) -> InferBody:
        """Returns what a body of the first protocol says; on any thread. Raises: GatewayError."""
        given = infer_object(self._inputs(call, model, version), read_object(call.body))
        return self._bodies.of_object(model, version, given, memoryview(b""))

    def _was_read(self, call: RestCall, form: ReplyForm | None, event: Fields, reading: "Future[InferBody]") -> None:
        """Begins the request whose long JSON was read on the thread."""
        try:
            read = reading.result()
        except GatewayError as error:
            call.fail(error, _id_field(call.body))
            return
        except Exception:
            # The boundary of a request: what a defect of ours raised on the thread has no other reader.
            logger.exception("reading the body of a request failed")
            call.fail(Internal())
            return
        self._begin(call, read, read.form if form is None else form, event)

    def _announced(self, call: HttpCall, size_bytes: int) -> Arrival | None:
        """Refuses a long body at its beginning, if it is known by then that it would be refused at its end.

        Returns the request on its way, if it is known who serves it.
        """
        model, version = _named(call)
        return self._exchanges.foresee(model, version, call, size_bytes)

    def _begin(self, call: RestCall, read: InferBody, form: ReplyForm, event: Fields = ()) -> None:
        load_reports = self._exchanges.load_reports
        load_form = "" if load_reports is None else call.header(FORMAT_HEADER) or ""
        caller = RestCaller(call, form, event, load_reports if load_form else None, load_form)
        if self._exchanges.begin(read.query, read.request_id, read.raw, caller) and read.key is not None:
            self._bodies.keep(read)

    def _inputs(self, call: HttpCall, model: str, version: str) -> tuple[TensorSpec, ...]:
        """Returns the inputs of the version that is asked for, or of the newest, for a request that does not name them.

        Raises: NotFound, Unavailable, VersionNotReady, InvalidArgument.
        """
        return tuple(model_metadata.find(self._catalog, model, version).inputs)

    # ---- health ----

    async def alive(self, call: HttpCall) -> None:
        """What KServe's client asks for."""
        _answer(call, {"status": "alive"})

    async def live(self, call: HttpCall) -> None:
        ready = (await self._inference.ServerReady(pb.ServerReadyRequest(), call)).ready
        _answer(call, {"live": True, "ready": ready})

    async def ready(self, call: HttpCall) -> None:
        ready = (await self._inference.ServerReady(pb.ServerReadyRequest(), call)).ready
        _answer(call, {"live": True, "ready": ready}, 200 if ready else 503)

    async def model_ready(self, call: HttpCall) -> None:
        """Answers 200 where the model can serve, 404 where there is none, 503 where it cannot now."""
        model, version = _named(call)
        answer = await self._inference.ModelReady(pb.ModelReadyRequest(name=model, version=version), call)
        if not answer.ready:
            try:
                check_ready(self._catalog, model_metadata.find(self._catalog, model, version))
            except VersionNotReady as error:
                raise Unavailable(str(error)) from None
            raise Unavailable(f"model {shown(model)} is not ready: requests are not admitted yet")
        _answer(call, {"name": model, "ready": True})

    # ---- models ----

    async def list_models(self, call: HttpCall) -> None:
        response = await self._inference.RepositoryIndex(pb.RepositoryIndexRequest(ready=True), call)
        _answer(call, {"models": list(dict.fromkeys(model.name for model in response.models))})

    async def generate(self, call: HttpCall) -> None:
        raise Unimplemented(_NO_GENERATION)

    async def explain(self, call: HttpCall) -> None:
        raise Unimplemented(_NO_EXPLANATION)

    def _rpc(self, row: RpcPath) -> Callable[[HttpCall], Awaitable[None]]:
        method: Callable[[Any, HttpCall], Awaitable[Any]] = getattr(self._inference, row.rpc)

        changes = RPCS[SERVICE + row.rpc].roles == {Role.OPERATOR}

        async def answer(call: HttpCall) -> None:
            if changes and (is_of_another_site(call.header) or _is_renamed(call)):
                raise PermissionDenied("what a page of another site asks to load or unload is not done")
            _answer(call, row.shown(await method(row.request(call), call)))

        return answer


def _answer(call: HttpCall, value: Mapping[str, Any] | list[Any], status: int = 200) -> None:
    # Not compressed, whatever is accepted: Triton's asyncio client accepts it always and inflates inferences alone.
    call.respond(status, JSON, [orjson.dumps(value)])


def _is_renamed(call: HttpCall) -> bool:
    """Returns whether the script of a site asks whose name was pointed at this host (DNS rebinding).

    Who shows a token is no such script: no site has one.
    """
    by_browser = call.principal is ANONYMOUS and call.header("origin") is not None
    return by_browser and not is_own_name(call.header("host") or "")


def _named(call: HttpCall) -> tuple[str, str]:
    """Returns the model that the path names, and the version, "" for none."""
    names = call.names
    return names[0], names[1] if len(names) > 1 else ""


def _json_size(given: str | None) -> int:
    """Returns where the JSON of the body ends, -1: with the body. Raises: InvalidArgument."""
    if given is None:
        return -1
    if len(given) > _MOST_DIGITS or not given.isascii() or not given.isdigit():
        raise InvalidArgument(f"Inference-Header-Content-Length is {shown(given)}: a number of bytes is expected")
    return int(given)


def _id_field(body: bytes | memoryview) -> Fields:
    """Returns the field that tells the id of a request that was not read, where it gives one first."""
    given = id_of(bytes(body[:512]))
    return ((b"x-gateway-request-id", given),) if given else ()
