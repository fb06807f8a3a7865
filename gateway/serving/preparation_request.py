"""The request to the process that prepares a model, and who is not prepared."""

from pathlib import Path

import msgspec

from gateway.serving.probe_request import ProbeRequest, ProbeResult
from gateway.serving.verification import ModelFacts


class PreparationRequest(msgspec.Struct, frozen=True):
    """A version to prepare, what its trial showed of it, the key of its entry, and the directory to write into.

    `idle`: it gets no CPU that anybody else wants.

    Units: `file_limit` bytes of one file that is written.
    """

    probe: ProbeRequest
    facts: ModelFacts
    batches: bool
    key: str
    directory: Path
    file_limit: int
    idle: bool


def objection(request: ProbeRequest, result: ProbeResult, *, on_cpu: bool, min_bytes: int, max_bytes: int) -> str:
    """Returns why a version that was probed so is not to be prepared; "" if it is.

    Units: `min_bytes` of weights from which it pays, `max_bytes` that all prepared models may have.
    """
    facts = result.facts
    if not max_bytes:
        return "models are not prepared here (--prepared-models-bytes 0)"
    if facts is None:
        return "nothing is known of its weights"
    if facts.weight_bytes < min_bytes:
        return f"its weights have {facts.weight_bytes} bytes, fewer than {min_bytes} (--prepare-min-bytes)"
    if facts.weight_bytes > max_bytes:
        return f"its weights have {facts.weight_bytes} bytes, more than {max_bytes} (--prepared-models-bytes)"
    if not on_cpu:
        return "it does not run on the CPU alone"
    if facts.chance or result.repeatable is False:
        return "it answers by chance, so that nothing could show that its answers stay the same"
    if result.repeatable is None:
        return "no inputs are known that it takes: nothing could show that its answers stay the same"
    return ""
