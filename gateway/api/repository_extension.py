"""The model repository extension: what is there, loading, unloading.

Source: Triton's model repository extension.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Protocol

from gateway.access.principal import Principal
from gateway.api.naming import check_model_name, shown
from gateway.errors import FailedPrecondition, InvalidArgument, Unimplemented
from gateway.pb import inference_pb2 as pb
from gateway.serving.catalog import Catalog
from gateway.serving.ensemble_loads import shortfall
from gateway.serving.version import VersionState

_Parameters = Mapping[str, pb.ModelRepositoryParameter]
_Index = pb.RepositoryIndexResponse.ModelIndex
MAX_CONFIG_BYTES = 1 << 20
_FILE = "file:"
_UNLOAD_PARAMETERS = ("force", "unload_dependents")
STATES: Mapping[VersionState, tuple[str, str]] = {
    VersionState.START: ("LOADING", ""),
    VersionState.LOADING: ("LOADING", ""),
    VersionState.AVAILABLE: ("READY", ""),
    VersionState.UNLOADING: ("UNLOADING", ""),
    VersionState.END: ("UNAVAILABLE", "unloaded"),
    VersionState.FAILED: ("UNAVAILABLE", ""),
}


class ModelControl(Protocol):
    """Loads and unloads in every worker of the host, for `actor`."""

    async def load(self, model: str, config: str | None, *, actor: str) -> None:
        """Makes the model's versions serve in every worker; `config` (JSON) takes the place of its config.pbtxt.

        Raises: GatewayError; then what served before serves on.
        """

    async def unload(self, model: str, *, actor: str) -> None:
        """Makes every worker stop serving the model.

        Raises: GatewayError.
        """


def index(catalog: Catalog, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
    """Returns every version with its state and, where it cannot serve, the reason; only the ready ones if asked for.

    Raises: Unimplemented (a repository is named).
    """
    _check_repository(request.repository_name)
    entries = []
    seen = set()
    for status in catalog.states():
        state, reason = STATES[status.state]
        seen.add(status.model)
        serves = status.state is VersionState.AVAILABLE
        if serves and (lack := shortfall(catalog, catalog.version(status.model, status.version))):
            serves, state, reason = False, "UNAVAILABLE", lack
        if serves or not request.ready:
            entries.append(
                _Index(name=status.model, version=status.version, state=state, reason=status.reason or reason)
            )
    if not request.ready:
        entries.extend(_Index(name=model) for model in catalog.models() if model not in seen)
    return pb.RepositoryIndexResponse(models=entries)


class Calling(Protocol):
    """A call's context, as far as it says who calls."""

    @property
    def principal(self) -> Principal: ...


async def load(
    control: ModelControl, request: pb.RepositoryModelLoadRequest, context: Calling
) -> pb.RepositoryModelLoadResponse:
    """Loads the model in every worker, again if it was loaded.

    Raises: InvalidArgument, Unimplemented (files in the request), and what loading raises.
    """
    _check_repository(request.repository_name)
    check_model_name(request.model_name)
    await control.load(request.model_name, _config(request.parameters), actor=context.principal.name)
    return pb.RepositoryModelLoadResponse()


async def unload(
    control: ModelControl, catalog: Catalog, request: pb.RepositoryModelUnloadRequest, context: Calling
) -> pb.RepositoryModelUnloadResponse:
    """Unloads the model from every worker. No model depends on another, so `unload_dependents` changes nothing.

    Raises: FailedPrecondition (a route serves the model, and `force` is not set), InvalidArgument, and what unloading
            raises.
    """
    _check_repository(request.repository_name)
    check_model_name(request.model_name)
    for name, parameter in request.parameters.items():
        if name not in _UNLOAD_PARAMETERS:
            raise _unexpected(name, " or ".join(_UNLOAD_PARAMETERS))
        _check_kind(name, parameter, "bool_param")
    routed = catalog.routed(request.model_name)
    if routed and not request.parameters["force"].bool_param:
        raise FailedPrecondition(
            f"the route of model {request.model_name!r} serves version {', '.join(routed)}: delete the route first "
            f"(gateway routes delete {request.model_name}), or set parameter 'force' to true to unload it all the same"
        )
    await control.unload(request.model_name, actor=context.principal.name)
    return pb.RepositoryModelUnloadResponse()


def _config(parameters: _Parameters) -> str | None:
    config: str | None = None
    for name in sorted(parameters):
        parameter = parameters[name]
        if name.startswith(_FILE):
            _check_file(name.removeprefix(_FILE))
        elif name == "config":
            _check_kind(name, parameter, "string_param")
            config = parameter.string_param
            if len(config.encode()) > MAX_CONFIG_BYTES:
                raise InvalidArgument(
                    f"parameter 'config' has {len(config)} characters, the limit is {MAX_CONFIG_BYTES}"
                )
        else:
            raise _unexpected(name, "config")
    return config


def _check_file(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or not path.isprintable():
        raise InvalidArgument(f"file name {shown(path)} does not stay inside the model's directory")
    raise Unimplemented(
        f"file {shown(path)}: models are not taken from requests; put them into the model repository and load again"
    )


def _check_kind(name: str, parameter: pb.ModelRepositoryParameter, expected: str) -> None:
    kind = parameter.WhichOneof("parameter_choice")
    if kind != expected:
        raise InvalidArgument(f"invalid value type for parameter {name!r}: expected {expected}, got {kind}")


def _check_repository(name: str) -> None:
    if name:
        raise Unimplemented(f"repository_name {shown(name)}: there is one repository, leave the name empty")


def _unexpected(name: str, allowed: str) -> InvalidArgument:
    return InvalidArgument(f"unexpected parameter {shown(name)}: {allowed} is allowed")
