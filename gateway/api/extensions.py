"""The server's description of itself: its name, its version, and the extensions that it has."""

from gateway import __version__
from gateway.pb import inference_pb2 as pb

NAME = "gateway"
# Only what is done. Trace and log settings can be read, shared memory has its calls, but neither is offered.
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
)


def server_metadata() -> pb.ServerMetadataResponse:
    """Returns the answer to ServerMetadata."""
    return pb.ServerMetadataResponse(name=NAME, version=__version__, extensions=EXTENSIONS)
