"""Requests by REST over a real connection, and the REST form of a gRPC message."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

from gateway.pb import inference_pb2 as pb
from tests.rest.serving import Answer, Client

SIZE = "inference-header-content-length"


class ServesRest(Protocol):
    """Whatever has a port for REST."""

    @property
    def rest_port(self) -> int: ...


async def ask(
    stand: ServesRest, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One request on a connection of its own; a body that is not bytes is sent as JSON."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: tests", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    client = Client(*await asyncio.open_connection("127.0.0.1", stand.rest_port, limit=1 << 24))
    try:
        return await client.ask("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    finally:
        client.writer.close()


def told(answer: Answer) -> Any:
    """The JSON of an answer, without the binary data behind it."""
    assert answer.fields["content-type"] in ("application/json", "application/octet-stream")
    size = answer.fields.get(SIZE)
    return json.loads(answer.body if size is None else answer.body[: int(size)])


def data_of(answer: Answer) -> list[bytes]:
    """The binary data of an answer, one for each output."""
    rest, data = answer.body[int(answer.fields[SIZE]) :], []
    for output in told(answer)["outputs"]:
        size = output["parameters"]["binary_data_size"]
        data.append(rest[:size])
        rest = rest[size:]
    assert not rest
    return data


def path_of(model: str, version: str = "", verb: str = "infer") -> str:
    named = f"/v2/models/{quote(model, safe='')}"
    return f"{named}/versions/{quote(version, safe='')}/{verb}" if version else f"{named}/{verb}"


def as_rest(request: pb.ModelInferRequest) -> tuple[str, bytes, dict[str, str]]:
    """The path, the body and the header of the binary request that says the same."""
    written: dict[str, Any] = {"id": request.id} if request.id else {}
    written["parameters"] = {"binary_data_output": True, **_values(request.parameters)}
    written["inputs"] = [
        {
            "name": one.name,
            "datatype": one.datatype,
            "shape": list(one.shape),
            "parameters": _values(one.parameters),
        }
        for one in request.inputs
    ]
    for tensor, raw in zip(written["inputs"], request.raw_input_contents, strict=False):
        tensor["parameters"]["binary_data_size"] = len(raw)
    if request.outputs:
        written["outputs"] = [{"name": one.name, "parameters": _values(one.parameters)} for one in request.outputs]
    head = json.dumps(written).encode()
    path = path_of(request.model_name, request.model_version)
    return path, head + b"".join(request.raw_input_contents), {SIZE: str(len(head))}


def _values(fields: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    return {
        name: getattr(field, field.WhichOneof("parameter_choice") or "bool_param") for name, field in fields.items()
    }
