"""An inference over REST: JSON in front, the tensors' raw data behind it.

Source: Triton's binary tensor data extension of the Open Inference Protocol.
"""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from gateway.client.answer import Answer
from gateway.client.inference_call import InferenceCall, answer_from
from gateway.client.numpy_tensor import as_array, as_tensor

JSON_LENGTH: Final = "inference-header-content-length"


def infer_path(call: InferenceCall) -> str:
    """Returns the path of the model, or of the version that is asked for."""
    version = f"/versions/{quote(call.version, safe='')}" if call.version else ""
    return f"/v2/models/{quote(call.model, safe='')}{version}/infer"


def infer_body(call: InferenceCall) -> tuple[bytes, int]:
    """Returns the body, and how many of its bytes are JSON. Raises: TypeError (an input)."""
    inputs, raws = [], []
    for name, value in call.inputs.items():
        datatype, shape, raw = as_tensor(name, value)
        size = {"binary_data_size": len(raw)}
        inputs.append({"name": name, "datatype": datatype.wire_name, "shape": shape, "parameters": size})
        raws.append(raw)
    said: dict[str, Any] = {"inputs": inputs, "parameters": dict(call.parameters) | {"binary_data_output": True}}
    if call.request_id:
        said["id"] = call.request_id
    if call.outputs:
        said["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in call.outputs]
    head = json.dumps(said).encode()
    return b"".join((head, *raws)), len(head)


def rest_answer(headers: Mapping[str, str], body: bytes) -> Answer:
    """Returns the answer that a response is. Raises: ValueError (it is not one of the protocol)."""
    length = headers.get(JSON_LENGTH)
    end = int(length) if length is not None else len(body)
    said = json.loads(body[:end])
    outputs, offset, view = {}, end, memoryview(body)
    for output in said["outputs"]:
        size = output["parameters"]["binary_data_size"]
        raw = view[offset : offset + size]
        outputs[output["name"]] = as_array(output["name"], output["datatype"], tuple(output["shape"]), raw)
        offset += size
    return answer_from(said["model_name"], said["model_version"], said.get("id", ""), outputs, headers)
