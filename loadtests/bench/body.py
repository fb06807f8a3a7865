"""The bytes of one inference call: what every server is sent, as one gRPC message with its prefix."""

import struct
from pathlib import Path

from gateway.pb import inference_pb2
from loadtests.bench.models import INPUT, BenchModel

METHOD = "/inference.GRPCInferenceService/ModelInfer"
PREFIX_BYTES = 5


def message(model: BenchModel) -> bytes:
    """A ModelInferRequest with one row, its tensor as raw bytes, no version named."""
    row = model.row
    request = inference_pb2.ModelInferRequest(model_name=model.name, raw_input_contents=[row.tobytes()])
    request.inputs.add(name=INPUT, datatype="FP32", shape=row.shape)
    return bytes(request.SerializeToString())


def write(model: BenchModel, path: Path) -> None:
    """The framed message lies in `path`, as h2load sends it."""
    content = message(model)
    path.write_bytes(struct.pack(">BI", 0, len(content)) + content)
