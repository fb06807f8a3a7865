"""The contract between the steps of an ensemble: what one writes must be what the others, and the callers, read. Pure.

Shapes are compared as requests have them, the batch dimension included: a size that one side leaves open fits any, and
is looked at again when a request runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.errors import FailedPrecondition
from gateway.serving.ensemble_graph import EnsembleGraph, EnsembleStep
from gateway.serving.version import Version
from gateway.tensor import TensorSpec

Matches = tuple[tuple[int, TensorSpec], ...]  # numbers of tensors of the ensemble, and what they are to the version


@dataclass(frozen=True, slots=True)
class StepContract:
    """What a version of a step's model takes and answers. Units: `max_rows` of one request; 0: no limit."""

    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_rows: int = 0


def contract_of(version: Version) -> StepContract:
    """Returns the contract of a version that can serve."""
    limit = version.config.max_request_rows if version.batches else 0
    return StepContract(version.name, version.inputs, version.outputs, limit)


def check_contracts(
    graph: EnsembleGraph,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_rows: int,
    contracts: Sequence[StepContract],
) -> None:
    """Checks that all steps fit together, and to the `inputs` and `outputs` that the ensemble declares.

    `contracts` are those of the steps, in their order; `max_rows` of a request to the ensemble, 0: no limit.

    Raises: FailedPrecondition naming the step, the tensor and both sides.
    """
    known: dict[int, tuple[TensorSpec, str]] = {
        number: (spec, f"input {spec.name!r} of the ensemble") for number, spec in enumerate(inputs)
    }
    for place in graph.order:
        step, contract = graph.steps[place], contracts[place]
        taken, answered = match_names(step, contract)
        if contract.max_rows and max_rows > contract.max_rows:
            raise FailedPrecondition(
                f"{step.label}: takes {contract.max_rows} rows at most, the ensemble {max_rows}: lower its "
                "max_batch_size"
            )
        for number, spec in taken:
            source, whence = known[number]
            if source.optional and not spec.optional:
                raise FailedPrecondition(
                    f"{step.label}: input {spec.name!r} is needed, but {whence} is optional and may be absent"
                )
            _check(source, whence, spec, f"{step.label}: input {spec.name!r}")
        for number, spec in answered:
            known[number] = (spec, f"output {spec.name!r} of {step.label}")
    for number, spec in zip(graph.answers, outputs, strict=True):
        source, whence = known[number]
        if source.optional:
            raise FailedPrecondition(
                f"output {spec.name!r} of the ensemble is {whence}, which is optional and may be absent"
            )
        _check(source, whence, spec, f"output {spec.name!r} of the ensemble")


def match_names(step: EnsembleStep, contract: StepContract) -> tuple[Matches, Matches]:
    """Returns the tensors that the version reads and writes, in its order; one tensor may be read as two inputs.

    Raises: FailedPrecondition: a name that the version does not have, or an input that it needs and does not get.
    """
    where = f"{step.label}: version {contract.version!r}"
    sides = (("input", step.inputs, contract.inputs), ("output", step.outputs, contract.outputs))
    for side, names, specs in sides:
        known = {spec.name for spec in specs}
        for name in names:
            if name not in known:
                raise FailedPrecondition(f"{where} has no {side} {name[:128]!r}; its {side}s are {sorted(known)}")
    missing = [spec.name for spec in contract.inputs if not spec.optional and spec.name not in step.inputs]
    if missing:
        raise FailedPrecondition(f"{where} needs the inputs {missing}, which input_map does not have")
    return (
        tuple((step.inputs[spec.name], spec) for spec in contract.inputs if spec.name in step.inputs),
        tuple((step.outputs[spec.name], spec) for spec in contract.outputs if spec.name in step.outputs),
    )


def _check(source: TensorSpec, whence: str, spec: TensorSpec, where: str) -> None:
    if source.datatype is not spec.datatype:
        raise FailedPrecondition(f"{where} is {spec.datatype.wire_name}, {whence} is {source.datatype.wire_name}")
    if source.any_shape or spec.any_shape:
        return
    if len(source.shape) != len(spec.shape) or any(
        -1 not in (ours, theirs) and ours != theirs for ours, theirs in zip(source.shape, spec.shape, strict=True)
    ):
        raise FailedPrecondition(f"{where} has shape {list(spec.shape)}, {whence} has {list(source.shape)}")
