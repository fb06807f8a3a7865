"""What answers over HTTP with what an RPC of the inference service answers: the one table of these paths.

Each row is a method and a path, the RPC, how the request is made of the HTTP request, and what of the answer is sent.
Roles, checks and answers are those of the RPC, for it is the RPC that is called.

Source: Open Inference Protocol v2, "HTTP/REST"; Triton's extensions and its src/http_server.cc.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from gateway.api.naming import shown
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.rest.http_call import HttpCall
from gateway.rest.json_text import read_object
from gateway.rest.message_json import plain

SERVICE: Final = "/inference.GRPCInferenceService/"
_FILE: Final = "file:"


class RpcPath(NamedTuple):
    """One row: see the module."""

    method: str
    path: str
    rpc: str
    request: Callable[[HttpCall], Message]
    shown: Callable[[Any], Any] = plain


def _model(kind: Callable[..., Message], field: str = "name") -> Callable[[HttpCall], Message]:
    """Returns what makes a request about the model, and the version if there is one, that the path names."""

    def request(call: HttpCall) -> Message:
        model, *version = call.names
        return kind(**{field: model, **({"version": version[0]} if version else {})})

    return request


def _index(call: HttpCall) -> Message:
    ready = read_object(call.body).get("ready", False)
    if not isinstance(ready, bool):
        raise InvalidArgument("ready is true or false")
    return pb.RepositoryIndexRequest(repository_name=call.names[0] if call.names else "", ready=ready)


def _load(call: HttpCall) -> Message:
    *repository, model = call.names
    request = pb.RepositoryModelLoadRequest(repository_name=repository[0] if repository else "", model_name=model)
    _set_parameters(request.parameters, read_object(call.body))
    return request


def _unload(call: HttpCall) -> Message:
    *repository, model = call.names
    request = pb.RepositoryModelUnloadRequest(repository_name=repository[0] if repository else "", model_name=model)
    _set_parameters(request.parameters, read_object(call.body))
    return request


def _set_parameters(fields: Any, given: dict[str, Any]) -> None:
    """Raises: InvalidArgument."""
    parameters = given.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidArgument("parameters: an object is expected")
    for name, value in parameters.items():
        if isinstance(value, bool):
            fields[name].bool_param = value
        elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
            fields[name].int64_param = value
        elif isinstance(value, str) and name.startswith(_FILE):
            fields[name].bytes_param = value.encode()
        elif isinstance(value, str):
            fields[name].string_param = value
        else:
            raise InvalidArgument(f"parameter {shown(name)} is neither a text, a whole number nor true or false")


def _trace(call: HttpCall) -> Message:
    request = pb.TraceSettingRequest(model_name=call.names[0] if call.names else "")
    for name, value in (read_object(call.body) if call.method == "POST" else {}).items():
        values = [] if value is None else value if isinstance(value, list) else [value]
        request.settings[name].value.extend(str(one) for one in values)
    return request


def _shown_trace(response: pb.TraceSettingResponse) -> dict[str, Any]:
    return {
        name: list(setting.value) if name == "trace_level" else setting.value[0]
        for name, setting in sorted(response.settings.items())
    }


def _log(call: HttpCall) -> Message:
    request = pb.LogSettingsRequest()
    for name, value in (read_object(call.body) if call.method == "POST" else {}).items():
        setting = request.settings[name]
        if isinstance(value, bool):
            setting.bool_param = value
        elif isinstance(value, int) and 0 <= value < 1 << 32:
            setting.uint32_param = value
        elif isinstance(value, str):
            setting.string_param = value
        elif value is not None:
            raise InvalidArgument(f"log setting {shown(name)} is neither a text, a whole number nor true or false")
    return request


def _shown_log(response: pb.LogSettingsResponse) -> dict[str, Any]:
    return {
        name: getattr(setting, setting.WhichOneof("parameter_choice") or "string_param")
        for name, setting in sorted(response.settings.items())
    }


def _regions(kind: Callable[..., Message]) -> Callable[[HttpCall], Message]:
    return lambda call: kind(name=call.names[0] if call.names else "")


def _shown_regions(response: Any) -> list[Any]:
    return [plain(region) for _, region in sorted(response.regions.items())]


def _nothing(_: object) -> dict[str, Any]:
    return {}


def _config(response: pb.ModelConfigResponse) -> dict[str, Any]:
    return plain(response.config)


def _models(response: pb.RepositoryIndexResponse) -> list[Any]:
    return [plain(model) for model in response.models]


def _shared_memory(kind: str, folder: str) -> tuple[RpcPath, ...]:
    """Returns the paths of one kind of shared memory: there is never any, but Triton's clients ask."""
    status, register, unregister = (f"{kind}SharedMemory{what}" for what in ("Status", "Register", "Unregister"))
    requests = [getattr(pb, f"{name}Request") for name in (status, register, unregister)]
    root = f"/v2/{folder}"
    return (
        RpcPath("GET", f"{root}/status", status, _regions(requests[0]), _shown_regions),
        RpcPath("GET", f"{root}/region/{{region}}/status", status, _regions(requests[0]), _shown_regions),
        RpcPath("POST", f"{root}/region/{{region}}/register", register, _regions(requests[1]), _nothing),
        RpcPath("POST", f"{root}/unregister", unregister, _regions(requests[2]), _nothing),
        RpcPath("POST", f"{root}/region/{{region}}/unregister", unregister, _regions(requests[2]), _nothing),
    )


def _versioned(method: str, path: str, rpc: str, request: Callable[[HttpCall], Message], **shows: Any) -> list[RpcPath]:
    """Returns the row of a model and that of a version of it; `path` is what follows."""
    return [
        RpcPath(method, f"/v2/models/{{model}}{path}", rpc, request, **shows),
        RpcPath(method, f"/v2/models/{{model}}/versions/{{version}}{path}", rpc, request, **shows),
    ]


RPC_PATHS: Final = (
    RpcPath("GET", "/v2", "ServerMetadata", lambda _: pb.ServerMetadataRequest()),
    *_versioned("GET", "", "ModelMetadata", _model(pb.ModelMetadataRequest)),
    *_versioned("GET", "/config", "ModelConfig", _model(pb.ModelConfigRequest), shown=_config),
    *_versioned("GET", "/stats", "ModelStatistics", _model(pb.ModelStatisticsRequest)),
    RpcPath("GET", "/v2/models/stats", "ModelStatistics", lambda _: pb.ModelStatisticsRequest()),
    RpcPath("POST", "/v2/repository/index", "RepositoryIndex", _index, _models),
    RpcPath("POST", "/v2/repository/{repository}/index", "RepositoryIndex", _index, _models),
    RpcPath("POST", "/v2/repository/models/{model}/load", "RepositoryModelLoad", _load, _nothing),
    RpcPath("POST", "/v2/repository/{repository}/models/{model}/load", "RepositoryModelLoad", _load, _nothing),
    RpcPath("POST", "/v2/repository/models/{model}/unload", "RepositoryModelUnload", _unload, _nothing),
    RpcPath("POST", "/v2/repository/{repository}/models/{model}/unload", "RepositoryModelUnload", _unload, _nothing),
    *(RpcPath(method, "/v2/trace/setting", "TraceSetting", _trace, _shown_trace) for method in ("GET", "POST")),
    *(
        RpcPath(method, "/v2/models/{model}/trace/setting", "TraceSetting", _trace, _shown_trace)
        for method in ("GET", "POST")
    ),
    *(RpcPath(method, "/v2/logging", "LogSettings", _log, _shown_log) for method in ("GET", "POST")),
    *_shared_memory("System", "systemsharedmemory"),
    *_shared_memory("Cuda", "cudasharedmemory"),
)
