"""What a model takes, as its server says: over gRPC, or over REST where there is no gRPC port."""

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import grpc

from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from gateway.tensor import BY_NAME, Datatype
from loadtests.job.target import LoadTarget, TargetFailed, call_text

_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SignatureInput:
    """One input. Shapes: -1 is any size; where the model batches, the first one counts rows."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """A model's inputs, and its versions as the server lists them."""

    model: str
    versions: tuple[str, ...]
    inputs: tuple[SignatureInput, ...]


def ask_signature(target: LoadTarget, model: str, version: str = "", *, rest: bool = False) -> ModelSignature:
    """Returns what the model takes. Raises: TargetFailed."""
    return _over_rest(target, model, version) if rest else _over_grpc(target, model, version)


def _over_grpc(target: LoadTarget, model: str, version: str) -> ModelSignature:
    with target.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            answer = stub.ModelMetadata(
                pb.ModelMetadataRequest(name=model, version=version), timeout=_DEADLINE_S, wait_for_ready=False
            )
        except grpc.RpcError as error:
            raise TargetFailed(f"model {model!r} at {target.server}: {call_text(error)}") from None
    inputs = [(one.name, one.datatype, one.shape) for one in answer.inputs]
    return _signature(model, answer.versions, inputs)


def _over_rest(target: LoadTarget, model: str, version: str) -> ModelSignature:
    host, port = target.address_of("rest")
    context = target.tls_context("http/1.1")
    made = (
        http.client.HTTPConnection(host, port, timeout=_DEADLINE_S)
        if context is None
        else http.client.HTTPSConnection(host, port, timeout=_DEADLINE_S, context=context)
    )
    path = f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
    try:
        made.request("GET", path, headers={"authorization": target.authorization} if target.token else {})
        answer = made.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise TargetFailed(f"model {model!r} at {target.rest}: {error}") from None
    finally:
        made.close()
    if answer.status != 200:
        raise TargetFailed(f"model {model!r} at {target.rest}: {answer.status} {body[:300].decode(errors='replace')}")
    try:
        said = json.loads(body)
        inputs = [(one["name"], one["datatype"], one["shape"]) for one in said.get("inputs") or ()]
        return _signature(model, said.get("versions") or (), inputs)
    except (ValueError, KeyError, TypeError) as error:
        raise TargetFailed(
            f"model {model!r} at {target.rest}: its metadata are not those of the protocol: {error!r}"
        ) from None


def _signature(model: str, versions: Sequence[str], inputs: Sequence[tuple[str, str, Any]]) -> ModelSignature:
    unknown = [datatype for _, datatype, _ in inputs if datatype not in BY_NAME]
    if unknown:
        raise InvalidArgument(f"model {model!r} has an input of datatype {unknown[0]!r}, which the protocol has not")
    made = tuple(
        SignatureInput(name, BY_NAME[kind], tuple(int(size) for size in shape)) for name, kind, shape in inputs
    )
    return ModelSignature(model, tuple(versions), made)
