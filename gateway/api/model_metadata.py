"""The metadata of a model that a client can read: whether it is ready, its tensors, its configuration.

Source: Open Inference Protocol v2, ModelReady and ModelMetadata; Triton's model configuration extension.
"""

from collections.abc import Iterable

from gateway.api.naming import check_model_name, check_version
from gateway.errors import NotFound, Unavailable, VersionNotReady
from gateway.pb import inference_pb2 as pb
from gateway.serving.catalog import Catalog
from gateway.serving.ensemble_loads import check_ready
from gateway.serving.model_config import version_order
from gateway.serving.version import Version, VersionState
from gateway.tensor import TensorSpec

_Tensor = pb.ModelMetadataResponse.TensorMetadata


def find(catalog: Catalog, model: str, version: str) -> Version:
    """Returns the version, or the newest ready one where the request names none.

    Raises: InvalidArgument (no such name can exist), NotFound, Unavailable, VersionNotReady.
    """
    check_model_name(model)
    check_version(version)
    return catalog.version(model, version) if version else catalog.newest(model)


def model_ready(catalog: Catalog, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
    """Returns whether the model can serve; clients may wait in a loop for one that is unknown or unloaded.

    Raises: InvalidArgument (no such name can exist).
    Source: Open Inference Protocol v2; Triton, which answers NOT_FOUND for an unknown model since 2026.
    """
    try:
        check_ready(catalog, find(catalog, request.name, request.version))
    except (NotFound, Unavailable, VersionNotReady):
        return pb.ModelReadyResponse(ready=False)
    return pb.ModelReadyResponse(ready=True)


def model_metadata(catalog: Catalog, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
    """Returns the tensors of a version and the versions that can be asked for.

    Shapes: with the batch dimension, as -1, where the version batches; [-1] where the model declares none.
    Raises: InvalidArgument, NotFound, Unavailable, VersionNotReady.
    """
    version = find(catalog, request.name, request.version)
    ready = [status.version for status in catalog.states(version.model) if status.state is VersionState.AVAILABLE]
    return pb.ModelMetadataResponse(
        name=version.model,
        versions=sorted(ready, key=version_order),
        platform=version.config.kind.shown,
        inputs=_tensors(version.inputs),
        outputs=_tensors(version.outputs),
    )


def model_config(catalog: Catalog, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
    """Returns the configuration of a version, completed from the model.

    Raises: InvalidArgument, NotFound, Unavailable, VersionNotReady.
    """
    version = find(catalog, request.name, request.version)
    return pb.ModelConfigResponse(config=pb.ModelConfig.FromString(version.config.message))


def _tensors(specs: Iterable[TensorSpec]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    return [_Tensor(name=spec.name, datatype=spec.datatype.wire_name, shape=spec.told_shape) for spec in specs]
