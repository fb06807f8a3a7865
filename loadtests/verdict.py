"""Whether an answer is right: the outputs of the version that it names, and that version allowed to answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gateway.pb import inference_pb2 as pb
from loadtests.budgets import SIGMAS, TOLERANCE
from loadtests.samples import Array, Sample

_TYPES: Mapping[str, np.dtype[np.generic]] = {"FP32": np.dtype(np.float32), "INT64": np.dtype(np.int64)}


class Violation(Exception):
    """An answer that should not have been given; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `said` is the trailing metadata."""

    message: pb.ModelInferResponse
    said: Mapping[str, str]

    @property
    def version(self) -> str:
        return self.said.get("x-gateway-version", "")

    @property
    def arm(self) -> str:
        return self.said.get("x-gateway-arm", "")


def answer_of(message: pb.ModelInferResponse, trailing: Iterable[tuple[str, str | bytes]] | None) -> Answer:
    said = {name: value if isinstance(value, str) else value.decode("latin-1") for name, value in trailing or ()}
    return Answer(message, said)


def check_answer(answer: Answer, sample: Sample, request_id: str) -> None:
    """Raises: Violation unless id, version and outputs are those of one version, the one that the metadata name."""
    message = answer.message
    if message.id != request_id:
        raise Violation(f"id {message.id!r} in the answer to another request")
    if not answer.version:
        raise Violation("no x-gateway-version in the trailing metadata")
    if message.model_version != answer.version:
        raise Violation(f"model_version is {message.model_version!r}, the metadata name {answer.version!r}")
    if answer.version not in sample.expected:
        raise Violation(f"version {answer.version!r} answered, known are {sorted(sample.expected)}")
    given = outputs(message)
    if not _same(given, sample.expected[answer.version]):
        others = [version for version, expected in sample.expected.items() if _same(given, expected)]
        whose = f"those of version {others[0]!r}" if others else "those of no version"
        raise Violation(f"the metadata name version {answer.version!r}, the outputs are {whose}")


def check_version(answer: Answer, legal: frozenset[str]) -> None:
    """Raises: Violation if the version was not legal at any moment of the call."""
    if answer.version not in legal:
        raise Violation(f"version {answer.version!r} answered while only {sorted(legal)} was legal")


def share_text(hits: int, total: int, share: float) -> str:
    """What is wrong with `hits` of `total` where `share` of them was meant; "" if it is within the budget's sigmas."""
    if not total:
        return "nothing was counted"
    allowed = SIGMAS * (total * share * (1 - share)) ** 0.5
    if abs(hits - total * share) <= allowed:
        return ""
    return f"{hits} of {total} is not {share:.2%}: {total * share:.0f} +- {allowed:.0f} were expected"


def outputs(message: pb.ModelInferResponse) -> dict[str, Array]:
    """Raises: Violation if the outputs cannot be read."""
    if len(message.raw_output_contents) != len(message.outputs):
        raise Violation(f"{len(message.outputs)} outputs with {len(message.raw_output_contents)} raw contents")
    read: dict[str, Array] = {}
    for output, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        if output.datatype not in _TYPES:
            raise Violation(f"output {output.name!r} has datatype {output.datatype!r}")
        try:
            read[output.name] = np.frombuffer(raw, _TYPES[output.datatype]).reshape(tuple(output.shape))
        except ValueError as error:
            raise Violation(f"output {output.name!r}: {error}") from None
    return read


def _same(given: Mapping[str, Array], expected: Mapping[str, Array]) -> bool:
    return given.keys() == expected.keys() and all(
        given[name].shape == array.shape
        and np.allclose(given[name].astype(np.float64), array.astype(np.float64), rtol=0, atol=TOLERANCE)
        for name, array in expected.items()
    )
