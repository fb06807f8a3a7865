"""Calls whose answers are looked at: whether a server answers rightly, and how long its right answer is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import grpc
import numpy as np

from gateway.pb import inference_pb2
from loadtests.bench.body import METHOD, PREFIX_BYTES, message
from loadtests.bench.models import BenchModel, Floats

KEY_HEADER: Final = "x-user-id"
_PATIENCE_S: Final = 30.0
_REPEATS: Final = 5
_KEYS_TRIED: Final = 64
# Another build of ONNX Runtime, or another batch size, may round differently.
_RELATIVE: Final = 1e-3
_ABSOLUTE: Final = 1e-5


class WrongAnswer(Exception):
    """A server refused a call, or answered it with other values than the model has."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to one call; `arm` is empty where the server has none."""

    data_bytes: int
    version: str
    arm: str


class Probe:
    """One model's calls to one server."""

    def __init__(
        self, channel: grpc.Channel, model: BenchModel, expected: Mapping[str, Floats], authorization: str
    ) -> None:
        self._caller = (("authorization", authorization),) if authorization else ()
        self._call = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        self._model = model
        self._message = message(model)
        self._expected = expected

    def ask(self, key: str) -> Answer:
        """A checked answer. Raises: WrongAnswer."""
        try:
            content, call = self._call.with_call(
                self._message, timeout=_PATIENCE_S, metadata=((KEY_HEADER, key), *self._caller)
            )
        except grpc.RpcError as error:
            raise WrongAnswer(f"{self._model.name}: {_status(error)}") from None
        response = inference_pb2.ModelInferResponse.FromString(content)
        metadata = dict([*call.initial_metadata(), *call.trailing_metadata()])
        version = self._checked(response)
        return Answer(len(content) + PREFIX_BYTES, version, str(metadata.get("x-gateway-arm", "")))

    def answer_bytes(self, key: str) -> int:
        """The length of that key's answer with its prefix, which must be the same each time."""
        sizes = {self.ask(key).data_bytes for _ in range(_REPEATS)}
        if len(sizes) != 1:
            raise WrongAnswer(f"{self._model.name}: answers to one request have {sorted(sizes)} bytes")
        return sizes.pop()

    def keys_of_arms(self) -> dict[str, str]:
        """A key for every arm that answers, found by asking with many."""
        result: dict[str, str] = {}
        for number in range(_KEYS_TRIED):
            key = f"user-{number}"
            result.setdefault(self.ask(key).arm, key)
        return result

    def _checked(self, response: inference_pb2.ModelInferResponse) -> str:
        return checked_version(self._model.name, self._expected, response.model_version, _values(response))


def checked_version(model: str, expected: Mapping[str, Floats], said: str, got: Floats) -> str:
    """The version whose values these are: the one that the answer names, or any where it names none.

    Raises: WrongAnswer.
    """
    for version, values in expected.items():
        wanted = values.ravel()
        if said not in ("", version) or got.shape != wanted.shape:
            continue
        if np.allclose(got, wanted, rtol=_RELATIVE, atol=_ABSOLUTE):
            return version
    raise WrongAnswer(
        f"{model}: version {said or '(not said)'} answered {got[:4]}, "
        + ", ".join(f"version {version} is {values.ravel()[:4]}" for version, values in expected.items())
    )


def _status(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)


def _values(response: inference_pb2.ModelInferResponse) -> Floats:
    if response.raw_output_contents:
        raw = response.raw_output_contents[0]
        return np.frombuffer(raw, np.float32) if len(raw) % 4 == 0 else np.zeros(0, np.float32)
    if response.outputs:
        return np.asarray(response.outputs[0].contents.fp32_contents, np.float32)
    return np.zeros(0, np.float32)


@contextmanager
def probing(
    address: str, model: BenchModel, expected: Mapping[str, Floats], authorization: str = ""
) -> Iterator[Probe]:
    """A probe of the server at `address` (host:port), which proves who calls where that is asked for."""
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield Probe(channel, model, expected, authorization)
