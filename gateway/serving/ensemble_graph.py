"""The graph of an ensemble: its steps and the tensors between them, as config.pbtxt writes them and before any of the
steps' models is known. Pure.

Source: Triton, ModelEnsembling: maps lead from a name of the step's model to a name of the ensemble.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.pb import inference_pb2
from gateway.serving.model_config import check_model_name

MOST_STEPS: Final = 64
MOST_CALLS: Final = 512  # of one request, the steps of ensembles within it included: a loop makes them in one turn
ROUTED: Final = -1  # as the version of a step: the rules of its model say which; 0 is a field that was left out
_NAMES_SHOWN: Final = 20

Tensors = Mapping[str, int]  # by the name that a step's model has for it, the number of a tensor of the ensemble


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """One step. `version` is "" where the rules of its model decide; `place` counts from 1."""

    place: int
    model: str
    version: str
    inputs: Tensors
    outputs: Tensors

    @property
    def label(self) -> str:
        """Returns what errors call the step."""
        return f"step {self.place} (model {self.model!r}{f' version {self.version!r}' if self.version else ''})"


@dataclass(frozen=True, slots=True)
class EnsembleGraph:
    """The steps of an ensemble.

    `tensors` are the names of all tensors; the first `given` of them are the inputs of the ensemble, in their order.
    `answers` are the tensors of its outputs. `readers` has the steps that read each tensor, `writer` the step that
    writes it (-1: the request brings it), and `order` all steps, each after those that it needs; steps by index.
    `reads` has how many inputs of steps read each tensor that only steps need; 0 for those of the request.
    """

    steps: tuple[EnsembleStep, ...]
    tensors: tuple[str, ...]
    given: int
    answers: tuple[int, ...]
    readers: tuple[tuple[int, ...], ...]
    writer: tuple[int, ...]
    order: tuple[int, ...]
    reads: tuple[int, ...]


def read_graph(message: inference_pb2.ModelConfig) -> EnsembleGraph:
    """Returns the graph that a configuration describes.

    Raises: FailedPrecondition naming the step and the tensor: no steps or too many, a name that is none, a tensor that
            nothing writes or two steps write, a cycle, a step whose outputs lead to no output, an input that no step
            reads.
    """
    written = message.ensemble_scheduling.step
    if not written:
        raise FailedPrecondition("ensemble_scheduling: an ensemble has at least one step, and this one has none")
    if len(written) > MOST_STEPS:
        raise FailedPrecondition(f"ensemble_scheduling: {len(written)} steps are more than the limit of {MOST_STEPS}")
    numbers = {tensor.name: place for place, tensor in enumerate(message.input)}
    given = len(numbers)
    steps = tuple(_step(place, step, numbers) for place, step in enumerate(written, 1))
    for tensor in message.output:
        if tensor.name not in numbers:
            raise FailedPrecondition(f"output {tensor.name[:128]!r} is written by no step: {_have(steps, numbers)}")
    names = tuple(numbers)
    writer = _writers(steps, names, given)
    readers = tuple(
        tuple(place for place, step in enumerate(steps) if number in step.inputs.values())
        for number in range(len(names))
    )
    answers = tuple(numbers[tensor.name] for tensor in message.output)
    for number in range(given):
        if not readers[number] and number not in answers:
            raise FailedPrecondition(f"input {names[number]!r} is read by no step")
    read = Counter(number for step in steps for number in step.inputs.values())
    reads = tuple(0 if number < given or number in answers else read[number] for number in range(len(names)))
    graph = EnsembleGraph(steps, names, given, answers, readers, writer, _order(steps, writer), reads)
    _check_alive(graph)
    return graph


def _step(place: int, step: inference_pb2.ModelEnsembling.Step, numbers: dict[str, int]) -> EnsembleStep:
    """Returns the step; gives each tensor that it names first a number."""
    where = f"step {place}"
    if not step.model_name:
        raise FailedPrecondition(f"{where}: model_name is missing")
    try:
        check_model_name(step.model_name)
    except InvalidArgument as error:
        raise FailedPrecondition(f"{where}: {error}") from error
    where = f"{where} (model {step.model_name!r})"
    if step.model_version < ROUTED:
        raise FailedPrecondition(
            f"{where}: model_version {step.model_version} must be the number of a version, or -1 for the one that the "
            "rules of the model choose"
        )
    if not step.output_map:
        raise FailedPrecondition(f"{where}: output_map is empty, so nothing could use what the step answers")
    maps: list[dict[str, int]] = []
    for name, tensors in (("input_map", step.input_map), ("output_map", step.output_map)):
        for own, tensor in tensors.items():
            if not own or not tensor:
                raise FailedPrecondition(f"{where}: {name} has an entry without key or value")
        maps.append({own: numbers.setdefault(tensor, len(numbers)) for own, tensor in sorted(tensors.items())})
    if len(set(maps[1].values())) < len(maps[1]):
        raise FailedPrecondition(f"{where}: output_map writes one tensor twice: {dict(step.output_map)}")
    version = str(step.model_version) if step.model_version > 0 else ""
    return EnsembleStep(place, step.model_name, version, maps[0], maps[1])


def _writers(steps: Sequence[EnsembleStep], names: Sequence[str], given: int) -> tuple[int, ...]:
    writers: dict[int, int] = dict.fromkeys(range(given), -1)
    for place, step in enumerate(steps):
        for number in step.outputs.values():
            if number in writers:
                other = steps[writers[number]].label if writers[number] >= 0 else "the request"
                raise FailedPrecondition(f"{step.label}: tensor {names[number]!r} is written by {other} already")
            writers[number] = place
    for step in steps:
        for own, number in step.inputs.items():
            if number not in writers:
                raise FailedPrecondition(
                    f"{step.label}: input {own!r} reads tensor {names[number]!r}, which no step writes and which is no "
                    "input of the ensemble"
                )
    return tuple(writers[number] for number in range(len(names)))


def _order(steps: Sequence[EnsembleStep], writer: Sequence[int]) -> tuple[int, ...]:
    """Returns the steps, each after those whose tensors it reads. Raises: FailedPrecondition naming a cycle."""
    needs = [{writer[number] for number in step.inputs.values()} - {-1} for step in steps]
    order: list[int] = []
    left = set(range(len(steps)))
    while left:
        now = sorted(place for place in left if needs[place].isdisjoint(left))
        if not now:
            raise FailedPrecondition(f"the steps wait for each other in a circle: {_circle(steps, needs, left)}")
        order += now
        left -= set(now)
    return tuple(order)


def _circle(steps: Sequence[EnsembleStep], needs: Sequence[set[int]], left: set[int]) -> str:
    path = [min(left)]
    while (following := min(needs[path[-1]] & left)) not in path:
        path.append(following)
    circle = [*path[path.index(following) :], following]
    return " needs ".join(steps[place].label for place in circle)


def _check_alive(graph: EnsembleGraph) -> None:
    """Checks that each step leads to an output. Raises: FailedPrecondition naming one that does not."""
    needed = set(graph.answers)
    for place in reversed(graph.order):
        step = graph.steps[place]
        if needed.isdisjoint(step.outputs.values()):
            names = ", ".join(repr(graph.tensors[number]) for number in step.outputs.values())
            raise FailedPrecondition(f"{step.label}: it runs for nothing: no output of the ensemble needs {names}")
        needed |= set(step.inputs.values())


def _have(steps: Sequence[EnsembleStep], numbers: Mapping[str, int]) -> str:
    names = {number: name for name, number in numbers.items()}
    written = [names[number] for step in steps for number in step.outputs.values()]
    return f"the steps write {', '.join(map(repr, written[:_NAMES_SHOWN]))}"
