"""The kinds of models: what a version consists of, and what runs it. The one table; all else is derived from it."""

from enum import Enum

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import ConfigSource


class ModelKind(Enum):
    """A kind by what its configuration says of platform and backend; a configuration that says neither is of ONNX.

    `has_file`: a version is a directory with the model's file, which a session runs. A version of another kind is any
    numbered directory, as what it does is in the configuration.
    """

    ONNX = ("onnxruntime_onnx", "onnxruntime", True)
    ENSEMBLE = ("ensemble", "", False)
    FEATURES = ("", "features", False)

    def __init__(self, platform: str, backend: str, has_file: bool) -> None:
        self.platform = platform
        self.backend = backend
        self.has_file = has_file

    @property
    def shown(self) -> str:
        """Returns what a client is told as the platform of the model: its backend, where it has no platform."""
        return self.platform or self.backend


def kind_of(source: ConfigSource) -> ModelKind:
    """Returns the kind that the configuration is of.

    Raises: FailedPrecondition, if there is none of that platform and backend.
    """
    platform, backend = source.message.platform, source.message.backend
    scheduled = source.message.HasField("ensemble_scheduling")
    if scheduled and not platform and not backend:
        return ModelKind.ENSEMBLE
    for kind in ModelKind:
        if scheduled and kind is not ModelKind.ENSEMBLE:
            continue
        if platform in ("", kind.platform) and backend in ("", kind.backend) and (platform or backend or kind.has_file):
            return kind
    platforms = ", ".join(repr(kind.platform) for kind in ModelKind if kind.platform)
    backends = ", ".join(repr(kind.backend) for kind in ModelKind if kind.backend)
    if platform and not any(platform == kind.platform for kind in ModelKind):
        raise FailedPrecondition(f"platform: {platform[:80]!a} is not served here, only {platforms}")
    if backend and not any(backend == kind.backend for kind in ModelKind):
        raise FailedPrecondition(f"backend: {backend[:80]!a} is not served here, only {backends}")
    if scheduled:
        raise FailedPrecondition(f"ensemble_scheduling goes with the platform {ModelKind.ENSEMBLE.platform!r} alone")
    raise FailedPrecondition(f"platform {platform!r} and backend {backend!r} do not go together: leave one of them out")
