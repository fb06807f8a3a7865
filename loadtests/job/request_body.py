"""Inputs as the bytes of a request, ready but for its id: gRPC messages, JSON, JSON with binary tensors. Pure.

The id is put in front (JSON) or behind (protobuf, whose fields have no order), so a call costs no encoding.
"""

import json
import struct
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from gateway.pb import inference_pb2 as pb
from loadtests.job.request_tensor import Inputs
from loadtests.job.scenario_plan import Protocol, TrafficPlan

_ID_TAG: Final = (3 << 3) | 2  # ModelInferRequest.id


def grpc_body(traffic: TrafficPlan, inputs: Inputs) -> bytes:
    """Returns the message without id."""
    request = pb.ModelInferRequest(model_name=traffic.model, model_version=traffic.version)
    for tensor in inputs:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype.wire_name, shape=tensor.shape)
        request.raw_input_contents.append(tensor.raw)
    return bytes(request.SerializeToString())


def framed(body: bytes, request_id: bytes) -> bytes:
    """Returns the gRPC frame of the message with this id. Shapes: at most 127 bytes of id."""
    return b"%b%b%c%c%b" % (
        struct.pack(">BI", 0, len(body) + 2 + len(request_id)),
        body,
        _ID_TAG,
        len(request_id),
        request_id,
    )


@dataclass(frozen=True, slots=True)
class RestBody:
    """The JSON behind the id and what follows it. `binary` is whether a header says where JSON ends."""

    tail: bytes
    raw: bytes
    binary: bool

    def with_id(self, request_id: bytes) -> tuple[bytes, int]:
        """Returns the whole body, and how many of its bytes are JSON."""
        head = b'{"id":"%b",%b' % (request_id, self.tail)
        return head + self.raw, len(head)


def rest_body(traffic: TrafficPlan, inputs: Inputs) -> RestBody:
    """Returns the body of a request over REST. Raises: InvalidArgument (values that JSON has not)."""
    binary = traffic.protocol == "rest-binary"
    told: list[dict[str, Any]] = []
    for tensor in inputs:
        one: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype.wire_name, "shape": list(tensor.shape)}
        told.append(
            one | ({"parameters": {"binary_data_size": len(tensor.raw)}} if binary else {"data": tensor.values()})
        )
    said: dict[str, Any] = {"inputs": told}
    if binary:
        said["parameters"] = {"binary_data_output": True}
    raw = b"".join(tensor.raw for tensor in inputs) if binary else b""
    return RestBody(json.dumps(said, separators=(",", ":")).encode()[1:], raw, binary)


def rest_path(traffic: TrafficPlan) -> str:
    """Returns where the model is asked."""
    version = f"/versions/{quote(traffic.version, safe='')}" if traffic.version else ""
    return f"/v2/models/{quote(traffic.model, safe='')}{version}/infer"


def is_rest(protocol: Protocol) -> bool:
    return protocol.startswith("rest")
