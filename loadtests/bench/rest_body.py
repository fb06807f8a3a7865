"""The same inference call over REST: its body, how h2load sends it, and whether an answer is right."""

import http.client
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from loadtests.bench.models import INPUT, BenchModel, Floats
from loadtests.bench.probe import KEY_HEADER, WrongAnswer, checked_version

FORMS: Final = ("binary", "json")
MOST_NUMBERS: Final = 10_000  # of a body in JSON; who sends more sends them binary
_JSON_SIZE: Final = "Inference-Header-Content-Length"
_PATIENCE_S: Final = 30.0
_REPEATS: Final = 5


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A request's path and body; `json_size` are the bytes of its JSON where tensors follow, else 0."""

    path: str
    body: Path
    json_size: int

    @property
    def fields(self) -> tuple[str, ...]:
        return (f"{_JSON_SIZE}: {self.json_size}",) if self.json_size else ()


def write(model: BenchModel, folder: Path) -> Mapping[str, RestRequest]:
    """The requests of a model by their form, their bodies written to `folder`; none in JSON of very many numbers."""
    row = model.row
    tensor = {"name": INPUT, "datatype": "FP32", "shape": list(row.shape)}
    raw = row.tobytes()
    binary = {**tensor, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [binary], "parameters": {"binary_data_output": True}}).encode()
    contents = {"binary": (head + raw, len(head))}
    if row.size <= MOST_NUMBERS:
        contents["json"] = (json.dumps({"inputs": [{**tensor, "data": row.ravel().tolist()}]}).encode(), 0)
    made = {}
    for form, (content, json_size) in contents.items():
        path = folder / f"{model.name}.{form}"
        path.write_bytes(content)
        made[form] = RestRequest(f"/v2/models/{model.name}/infer", path, json_size)
    return made


def answer_bytes(
    address: str, request: RestRequest, model: BenchModel, expected: Mapping[str, Floats], key: str
) -> int:
    """The length of that key's checked answer, which must be the same each time. Raises: WrongAnswer."""
    fields = dict(field.split(": ", 1) for field in request.fields) | {KEY_HEADER: key}
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_PATIENCE_S)
    sizes = set()
    try:
        for _ in range(_REPEATS):
            connection.request("POST", request.path, request.body.read_bytes(), fields)
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise WrongAnswer(f"{model.name}: {response.status} {content[:200]!r}")
            said, values = _values(content, int(response.getheader(_JSON_SIZE, "0")))
            checked_version(model.name, expected, said, values)
            sizes.add(len(content))
    except (OSError, http.client.HTTPException) as error:
        raise WrongAnswer(f"{model.name}: {error}") from None
    finally:
        connection.close()
    if len(sizes) != 1:
        raise WrongAnswer(f"{model.name}: answers to one request have {sorted(sizes)} bytes")
    return sizes.pop()


def _values(content: bytes, json_size: int) -> tuple[str, Floats]:
    """The version that an answer names, and the values of its first output."""
    said = json.loads(content[:json_size] if json_size else content)
    if json_size:
        raw = content[json_size:]
        return str(said["model_version"]), np.array(struct.unpack(f"<{len(raw) // 4}f", raw), np.float32)
    return str(said["model_version"]), np.array(said["outputs"][0]["data"], np.float32)
